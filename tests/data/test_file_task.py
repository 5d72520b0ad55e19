"""A file is read once or twice, without TensorFlow, and its tokens are those that SeqIO made of it."""

import builtins
import collections
import io
import json
import os
import subprocess
import sys
import textwrap

import pytest

from lmirl_jax import data
from tests.data.test_vocabularies import written_model

ROWS = [
    {"inputs": "a b", "targets": "1+2"},
    {"inputs": "é漢", "targets": " ab  c\n"},
    {"inputs": "", "targets": ""},
]
LENGTHS = {"inputs": 8, "targets": 8}
# The hash of the records, which SeqIO made, and that of the order in which training reads them, as checkpoints record it: it
# changes where the order does (`row_source.ORDER_VERSION`), and else resumed runs are refused without a reason.
PLAIN, WEIGHTED = (None, None, None), (None, 2, 0.5)
RECORDED = {
    ("bytes", PLAIN): (
        "fa106dc4bb185176f19809a13e8e2467118a1e83500c579e9c83d434f43b08fd",
        "be6f802e86f4927f77f0595c3ef33eb4",
    ),
    ("pieces", PLAIN): (
        "1b2919e94ef0d05c78393a490de7efdedb0ae304f68195585fe5851d1cf9f758",
        "f7c164d3e60985ac92e109ebd0d31e2a",
    ),
    ("bytes", WEIGHTED): (
        "942781775ddaa43f344e2b6f9c7ed24d886c6cd4039f40afc644f43ce06b14b8",
        "f45f693f79f7010b38de840c70c86b5d",
    ),
    ("pieces", WEIGHTED): (
        "fd21f391ea45bed9256f5e2e5a5ca5801b21415b137f63ca6d674810b86c4ca9",
        "ae0510a9478b438bc7161325078c7c3c",
    ),
}


@pytest.mark.parametrize(("vocabulary", "weights"), RECORDED)
def test_the_records_are_those_that_seqio_made(write_jsonl, tmp_path, vocabulary, weights):
    given = [{} if weight is None else {"weight": weight} for weight in weights]
    path = write_jsonl([row | weight for row, weight in zip(ROWS, given, strict=True)])
    model = None if vocabulary == "bytes" else str(written_model(tmp_path / "words.model"))
    task = data.get_task(data=path, vocabulary_path=model)
    records = data.tokenized_records(task.tasks[0], "train", str(tmp_path / "cache"))
    dataset = data.TrainDataset(task, 2, LENGTHS, cache_dir=str(tmp_path / "cache"))
    assert (records.content, dataset.fingerprint) == RECORDED[vocabulary, weights]
    assert records.weighted == (weights is WEIGHTED)
    texts = [records.source[i].features for i in range(3)]
    assert [text["targets_pretokenized"] for text in texts] == [row["targets"] for row in ROWS]


def test_the_tokens_are_those_of_the_same_texts_as_a_seqio_task(write_jsonl, make_task, tmp_path):
    file = data.get_task(data=write_jsonl(ROWS)).tasks[0]
    task = make_task({"train": [(row["inputs"], row["targets"]) for row in ROWS]})
    of_file, of_task = (data.tokenized_records(part, "train", str(tmp_path)) for part in (file, task))
    assert of_file.content == of_task.content
    for i in range(3):
        assert of_file.source[i].features == of_task.source[i].features


@pytest.fixture
def opened(monkeypatch):
    """Counts how often each JSONL file is opened."""
    counts = collections.Counter()
    real = io.open

    def counting_open(file, *args, **kwargs):
        if not isinstance(file, int) and str(file).endswith(".jsonl"):
            counts[os.path.basename(file)] += 1
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", counting_open)
    monkeypatch.setattr(io, "open", counting_open)
    return counts


def test_a_file_is_read_twice_and_from_then_on_once(write_jsonl, tmp_path, opened):
    path = write_jsonl([{"inputs": str(n), "targets": str(n), "weight": 1 + n % 2} for n in range(300)])
    opened.clear()
    # At first for its hash, and for its rows.
    for count in (2, 1):
        dataset = data.TrainDataset(data.get_task(data=path), 4, LENGTHS, cache_dir=str(tmp_path / "cache"))
        next(dataset.iterator(slice(0, 4)))
        assert opened.pop("examples.jsonl") == count


def test_several_data_sets_of_one_run_read_a_file_twice_together(write_jsonl, tmp_path, opened):
    path = write_jsonl(ROWS)
    os.utime(path, (1e9, 1e9))
    opened.clear()
    for _ in range(3):
        data.EvalDataset(data.get_task(data=path), LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    assert opened.pop("examples.jsonl") == 2
    write_jsonl(ROWS[::-1])
    os.utime(path, (1e9 + 1, 1e9 + 1))
    opened.clear()
    data.EvalDataset(data.get_task(data=path), LENGTHS, "train", cache_dir=str(tmp_path / "cache"))
    assert opened.pop("examples.jsonl") == 2


WITHOUT_TENSORFLOW = """
    import sys
    from lmirl_jax import configuration, data
    from lmirl_jax.tasks import gsm8k, number_paths
    path, vocabulary, cache = sys.argv[1:]
    for model in (None, vocabulary):
        task = data.get_task(data=path, validation_data=path, vocabulary_path=model)
        lengths = {"inputs": 8, "targets": 8}
        train = data.TrainDataset(task, 2, lengths, cache_dir=cache)
        batch = next(train.iterator(slice(0, 2)))
        held_out = data.EvalDataset(task, lengths, cache_dir=cache)
        print(held_out.metrics([row["targets_pretokenized"] for row in held_out.examples]))
        list(data.PairFile(path, task, lengths))
        data.PromptFile(path, task, lengths)
    configuration.load(["gin/runs/finetune.gin"], ["MODEL_DIR = 'x'", "TRAIN_STEPS = 1", f"DATA = {path!r}"])
    print(configuration.macro("TASK").name)
    loaded = [name for name in ("tensorflow", "seqio", "tensorflow_datasets") if name in sys.modules]
    sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def run_python(code, *arguments, cwd):
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.e2e
def test_a_file_needs_neither_tensorflow_nor_seqio(write_jsonl, tmp_path, words_model, repository):
    rows = [{"inputs": "compare 1", "targets": "a"}, {"inputs": "compare 2", "targets": "b"}]
    path = write_jsonl(rows)
    done = run_python(WITHOUT_TENSORFLOW, path, str(words_model), str(tmp_path / "cache"), cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "examples" and "exact_match" in done.stdout


BY_NAME = """
    import sys
    from lmirl_jax import data
    from lmirl_jax.tasks import gsm8k, number_paths
    assert "seqio" not in sys.modules
    task = data.get_task("number_paths")
    import seqio
    print(sorted(seqio.TaskRegistry.names()), task.tasks[0] is seqio.get_mixture_or_task("number_paths"))
"""
BY_SEQIO = """
    import lmirl_jax.data
    from lmirl_jax.tasks import gsm8k
    import seqio
    seqio.MixtureRegistry.add("more", ["gsm8k", "gsm8k_lenient"], default_rate=1)
    import tensorflow as tf
    assert not tf.config.get_visible_devices("GPU")
    from lmirl_jax.tasks import number_paths
    print(sorted(seqio.TaskRegistry.names()), True)
"""


@pytest.mark.e2e
@pytest.mark.parametrize("code", [BY_NAME, BY_SEQIO])
def test_bundled_tasks_are_registered_with_whoever_imports_seqio(repository, code):
    done = run_python(code, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['gsm8k', 'gsm8k_lenient', 'number_paths'] True\n"
    assert "cuda" not in done.stderr.lower() and "absl::InitializeLog" not in done.stderr


def test_keys_that_are_not_read_are_counted_once_a_row(write_jsonl, tmp_path):
    path = write_jsonl([ROWS[0] | {"note": 1}, json.dumps(ROWS[1] | {"note": 2, "more": 3})])
    records = data.tokenized_records(data.get_task(data=path).tasks[0], "train", str(tmp_path / "cache"))
    assert records.unread == {"note": 2, "more": 1}


TRAIN = """
    import sys
    from lmirl_jax.cli import main
    code = main(sys.argv[1:])
    loaded = [name for name in ("tensorflow", "seqio", "tensorflow_datasets") if name in sys.modules]
    sys.exit(f"loaded: {loaded}" if loaded else code)
"""


@pytest.mark.slow
@pytest.mark.e2e
def test_training_on_a_file_loads_no_tensorflow(write_jsonl, tmp_path, repository):
    path = write_jsonl(ROWS)
    settings = {
        "MODEL_DIR": str(tmp_path / "run"),
        "TRAIN_STEPS": 2,
        "DATA": path,
        "VALIDATION_DATA": path,
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 2,
    }
    files = ["gin/runs/finetune.gin", "gin/models/t5_1_1/tiny.gin"]
    arguments = [f"--gin_file={name}" for name in files] + [
        f"--gin.{name}={value!r}" for name, value in settings.items()
    ]
    done = run_python(TRAIN, "train", *arguments, cwd=repository)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))

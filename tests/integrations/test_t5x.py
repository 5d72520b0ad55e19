"""Inside T5X itself, where it is installed: its trainer, its `train.py`, and our own model with the same parameters.

docs/t5x.md says how T5X is installed; test_t5x_adapter.py tests the rest on a stand-in.
"""

import functools
import importlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import models, objectives, soft_q
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.training.step import loss_sums
from lmirl_jax.training.sums import means

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("t5x") is None,
        reason="T5X is not installed (it is on no registry; docs/t5x.md says how)",
    ),
    pytest.mark.slow,
    # T5X uses names of JAX that have newer ones.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
HERE = pathlib.Path(__file__).resolve().parent
SIZES = {
    "vocab_size": 384,
    "emb_dim": 16,
    "num_heads": 8,  # T5X divides them by the 8 CPU devices of the tests.
    "head_dim": 4,
    "mlp_dim": 32,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
}
LENGTHS = {"inputs": 16, "targets": 12}
# The first example has 3 + 1 tokens of input; a target of 4 tokens and its EOS does not fit into 4.
SHORT = {"inputs": 16, "targets": 3}


@pytest.fixture(autouse=True)
def _as_t5x_has_it():
    """T5X adds arrays of different rank."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def t5x():
    return importlib.import_module("lmirl_jax.integrations.t5x")


@pytest.fixture(scope="module")
def task() -> str:
    spec = importlib.util.spec_from_file_location("t5x_sums", HERE / "t5x_sums.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return "t5x_sums"


def make_model(t5x, dropout_rate=0.0, **options):
    """T5X's own model, tiny, over bytes."""
    import seqio
    from t5x import adafactor
    from t5x.examples.t5 import network

    config = network.T5Config(
        **SIZES, dtype="float32", dropout_rate=dropout_rate, mlp_activations=("gelu", "linear")
    )
    vocabulary = seqio.ByteVocabulary()
    return t5x.models.EncoderDecoderModel(
        module=network.Transformer(config),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=adafactor.Adafactor(
            decay_rate=0.8, logical_factor_rules=adafactor.standard_logical_factor_rules()
        ),
        **options,
    )


def make_decoder_only(t5x, **options):
    """T5X's own decoder-only model, tiny, over bytes."""
    import seqio
    from t5x import adafactor
    from t5x.examples.decoder_only import network

    sizes = {"vocab_size": 384, "emb_dim": 16, "num_heads": 8, "head_dim": 4, "mlp_dim": 32}
    config = network.TransformerConfig(**sizes, num_layers=2, dropout_rate=0.1)
    return t5x.models.DecoderOnlyModel(
        module=network.DecoderWrapper(config),
        vocabulary=seqio.ByteVocabulary(),
        optimizer_def=adafactor.Adafactor(
            decay_rate=0.8, logical_factor_rules=adafactor.standard_logical_factor_rules()
        ),
        **options,
    )


def batches(task: str, *, pack: bool, lengths=LENGTHS, converter="EncDecFeatureConverter"):
    """T5X's batches of the task, by SeqIO's converter; again from the first where they end."""
    import seqio

    dataset = seqio.get_dataset(
        task,
        task_feature_lengths=lengths,
        feature_converter=getattr(seqio, converter)(pack=pack),
        shuffle=False,
        num_epochs=None,
    )
    return dataset.batch(8, drop_remainder=True).as_numpy_iterator()


def train(model, task: str, pack: bool, steps: int = 20) -> list[dict[str, float]]:
    """The metrics of each step of T5X's own trainer, with dropout and its Adafactor, over 8 devices."""
    from t5x import partitioning, trainer, utils

    converter = model.FEATURE_CONVERTER_CLS.__name__
    data = batches(task, pack=pack, converter=converter)
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    first = next(batches(task, pack=pack, converter=converter))
    shapes = {name: array.shape for name, array in first.items()}
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes=shapes,
        partitioner=partitioner,
    )
    running = trainer.Trainer(
        model=model,
        train_state=initializer.from_scratch(jax.random.PRNGKey(0)),
        partitioner=partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(1),
        learning_rate_fn=lambda step: 1e-2,
        num_microbatches=None,
    )
    found = [running.train(data, num_steps=1).result() for _ in range(steps)]
    running.close()
    return [{name: float(value.value) for name, value in metrics.items()} for metrics in found]


EVERY_OPTION = {"label_smoothing": 0.1, "z_loss": 1e-2, "loss_normalizing_factor": "NUM_REAL_TARGET_TOKENS"}


@pytest.mark.parametrize(
    ("pack", "options"), [(True, EVERY_OPTION), (False, {})], ids=["packed, every option", "unpacked, plain"]
)
def test_twenty_steps_of_mle_are_t5xs_own(t5x, task, pack, options):
    model = make_model(t5x, dropout_rate=0.1, **options)
    own = train(model, task, pack)
    assert len({metrics["loss"] for metrics in own}) == 20
    for objective in (objectives.mle, functools.partial(objectives.iqlearn, td_weight=0.0)):
        ours = train(t5x.with_objective(model, objective=objective), task, pack)
        for step, (one, other) in enumerate(zip(own, ours, strict=True)):
            names = [name for name in one if not name.startswith("timing/")]
            assert {"loss", "accuracy", "cross_ent_loss", "z_loss", "learning_rate"} <= set(names)
            for name in names:
                np.testing.assert_array_equal(other[name], one[name], err_msg=f"{name}, step {step}")


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "unpacked"])
def test_twenty_steps_of_mle_of_a_decoder_only_model_are_t5xs_own(t5x, task, pack):
    model = make_decoder_only(t5x, **EVERY_OPTION)
    own = train(model, task, pack)
    ours = train(t5x.with_objective(model, objective=objectives.mle), task, pack)
    assert len({metrics["loss"] for metrics in own}) == 20
    for step, (one, other) in enumerate(zip(own, ours, strict=True)):
        for name in one:
            if not name.startswith("timing/"):
                np.testing.assert_array_equal(other[name], one[name], err_msg=f"{name}, step {step}")


def test_iqlearn_of_a_decoder_only_model_is_ours_on_its_logits(t5x, task):
    """The answers of T5X's rows, cut out of them, in rows of ours: the same loss, and the same mean reward."""
    batch = next(batches(task, pack=False, converter="DecoderFeatureConverter"))
    options = {"objective": objectives.iqlearn, "td_weight": 0.3, "discount": 0.9}
    plain = make_decoder_only(t5x, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS")
    shapes = {name: array.shape for name, array in batch.items()}
    params = plain.get_initial_variables(jax.random.PRNGKey(0), shapes)["params"]
    loss, metrics = jax.jit(t5x.with_objective(plain, **options).loss_fn, static_argnums=2)(
        params, batch, None
    )
    logits = np.asarray(plain._compute_logits(params, batch, None))
    total = count = rewards = 0.0
    for row, (inputs, targets) in enumerate(first_examples(task)):
        made = stack_rows([example_row(inputs, targets, lengths=LENGTHS, eos_ids=(1,), discount=0.9)])
        ours = jax.tree.map(jnp.asarray, made)
        place = slice(len(inputs), len(inputs) + len(targets))
        out = soft_q.from_logits(jnp.asarray(logits[row, place])[None], jnp.asarray(targets)[None])
        kept = slice(0, len(targets))
        losses = objectives.iqlearn(out, ours.discounts[:, kept], td_weight=0.3 * ours.td_weights[:, kept])
        total, count = total + float(losses.sum()), count + len(targets)
        rewards += float(objectives.implied_rewards(out, ours.discounts[:, kept]).sum())
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    np.testing.assert_allclose(metrics["reward"].compute(), rewards / count, rtol=1e-5)


def our_params(theirs) -> nnx.State:
    """T5X's parameters, or their gradients, in our model: its layers stacked, and the heads apart."""
    config = models.T5Config(**SIZES, dropout_rate=0.0)
    state = jax.eval_shape(lambda: nnx.state(config.build(jax.random.key(0))))
    flat = []
    for path, leaf in nnx.to_flat_state(state):
        name = "/".join(map(str, path)).replace("/norm/", f"/{path[0]}_norm/")
        name = {
            "token_embedder": "token_embedder/embedding",
            "logits_dense/kernel": "decoder/logits_dense/kernel",
        }.get(name, name)
        layers = range(2) if "/layers/" in name else [None]
        found = []
        for layer in layers:
            array = theirs
            for key in name.replace("/layers/", f"/layers_{layer}/").split("/"):
                array = array[key]
            found.append(array)
        value = jnp.stack(found) if len(found) > 1 else found[0]
        flat.append((path, leaf.replace(value.reshape(leaf.shape))))
    return nnx.from_flat_state(flat)


def our_batch(theirs: dict, examples: list, lengths: dict):
    """The batch that our own data room makes of the examples of T5X's unpacked batch."""
    rows = [
        example_row(inputs, targets, lengths=lengths, eos_ids=(1,), discount=0.9)
        for inputs, targets in examples
    ]
    ours = stack_rows(rows)
    np.testing.assert_array_equal(ours.tokens, theirs["decoder_target_tokens"])
    np.testing.assert_array_equal(ours.prompt_tokens, theirs["encoder_input_tokens"])
    return jax.tree.map(jnp.asarray, ours)


def first_examples(task: str, count: int = 8) -> list:
    import seqio

    dataset = seqio.get_mixture_or_task(task).get_dataset(None, "train", shuffle=False)
    return [(example["inputs"], example["targets"]) for example in dataset.take(count).as_numpy_iterator()]


@pytest.mark.parametrize("lengths", [LENGTHS, SHORT], ids=["whole", "truncated"])
def test_iqlearn_is_ours_on_the_same_batch_and_parameters(t5x, task, lengths):
    """Loss, each of its parts, and the gradient of every parameter, with our own T5 and our own step's loss."""
    batch = next(batches(task, pack=False, lengths=lengths))
    model = t5x.with_objective(
        make_model(t5x, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"),
        objective=objectives.iqlearn,
        td_weight=0.3,
        discount=0.9,
    )
    shapes = {name: array.shape for name, array in batch.items()}
    params = model.get_initial_variables(jax.random.PRNGKey(0), shapes)["params"]
    gradient = jax.jit(jax.value_and_grad(model.loss_fn, has_aux=True), static_argnums=2)
    (loss, metrics), theirs = gradient(params, batch, None)

    ours = our_batch(batch, first_examples(task), lengths)
    graph = nnx.graphdef(models.T5Config(**SIZES, dropout_rate=0.0).build(jax.random.key(0)))

    def our_loss(params):
        sums = loss_sums(nnx.merge(graph, params), objectives.iqlearn, ours, jnp.float32(0.3))
        return sums["loss"].total / sums["loss"].weight, means(sums)

    (our_value, found), our_gradient = jax.jit(jax.value_and_grad(our_loss, has_aux=True))(our_params(params))
    np.testing.assert_allclose(loss, our_value, rtol=1e-5)
    computed = {
        name: float(metric.compute()) for name, metric in metrics.items() if not hasattr(metric, "duration")
    }
    names = {
        "loss": "loss",
        "cross_ent_loss": "loss_mle",
        "td_loss": "loss_td",
        "reward": "reward",
        "entropy": "entropy",
        "accuracy": "accuracy",
    }
    for name, our_name in names.items():
        np.testing.assert_allclose(computed[name], found[our_name], rtol=1e-5, err_msg=name)
    assert computed["td_loss"] > 0.1
    for path, expected in nnx.to_flat_state(our_params(theirs)):
        value = dict(nnx.to_flat_state(our_gradient))[path][...]
        scale = float(jnp.abs(value).max())
        assert scale > 0
        np.testing.assert_allclose(expected[...], value, atol=1e-5 * scale, err_msg=str(path))


GIN = """
from __gin__ import dynamic_registration
import t5x_sums
from t5x.examples.t5 import network
include 't5x/examples/t5/byt5/base.gin'
include 't5x/configs/runs/finetune.gin'
include 'lmirl_jax/integrations/t5x.gin'
MIXTURE_OR_TASK_NAME = 't5x_sums'
TASK_FEATURE_LENGTHS = {'inputs': 8, 'targets': 8}
USE_CACHED_TASKS = False
INITIAL_CHECKPOINT_PATH = []
RANDOM_SEED = 0
network.T5Config:
    emb_dim = 16
    num_heads = 4
    head_dim = 4
    mlp_dim = 32
    num_encoder_layers = 2
    num_decoder_layers = 2
    dtype = 'float32'
"""


@pytest.mark.e2e
def test_t5xs_train_script_takes_the_gin_file(repository, tmp_path):
    """Steps, evaluation with our metrics, decoding by T5X's beam search, and a checkpoint of T5X's."""
    import t5x

    (tmp_path / "run.gin").write_text(GIN)
    run = tmp_path / "run"
    script = pathlib.Path(t5x.__file__).parent / "train.py"
    arguments = [
        "--gin_file=run.gin",
        f"--gin.MODEL_DIR='{run}'",
        "--gin.TRAIN_STEPS=4",
        "--gin.TD_WEIGHT=0.5",
    ]
    arguments += ["--gin.EVAL_PERIOD=2", "--gin.EVAL_STEPS=2", "--gin.BATCH_SIZE=8", "--alsologtostderr"]
    done = subprocess.run(
        [sys.executable, "-P", script, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(HERE), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = re.findall(r"\[4\] collection=training_eval/t5x_sums (.*)", done.stderr)
    found = {name: float(value) for name, value in re.findall(r"([\w/]+)=([-\d.e]+)", line)}
    assert found["loss"] == pytest.approx(
        found["cross_ent_loss"] + found["z_loss"] + found["td_loss"], rel=1e-5
    )
    assert found["td_loss"] > 1 and found["reward"] < 0 and found["entropy"] > 1
    lines = (run / "inference_eval" / "t5x_sums-metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
    assert (run / "checkpoint_4").is_dir() and "TD_WEIGHT = 0.5" in (run / "config.gin").read_text()

"""Every bundled gin file parses and builds what it is for."""

import gin
import jax
import numpy as np
import pytest

from lmirl_jax import configuration, objectives, training
from lmirl_jax.training.state import init_params

SETTINGS = ["VOCAB_SIZE = 32128", "DROPOUT_RATE = 0.1", "DTYPE = 'bfloat16'", "REMAT = 'full'"]
# Parameters without the output embedding of the published sizes are Hugging Face's counts, input embedding included.
SIZES = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}


def files(folder: str) -> list[str]:
    found = [name for name in configuration.bundled_files() if name.startswith(f"gin/{folder}/")]
    assert found
    return found


def test_every_file_belongs_to_a_tested_folder():
    assert {name.split("/")[1] for name in configuration.bundled_files()} == {
        "models",
        "objectives",
        "meshes",
        "runs",
    }


@pytest.mark.parametrize("name", files("models"))
def test_models(name):
    configuration.load([name], SETTINGS, complete=False)
    model = configuration.macro("MODEL")
    assert (model.vocab_size, model.dtype, model.remat) == (32128, "bfloat16", "full")
    shapes = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    size = name.split("/")[-1].removesuffix(".gin")
    if size in SIZES:
        assert count == SIZES[size]


@pytest.mark.parametrize("name", files("objectives"))
def test_objectives(name):
    configuration.load([name], complete=False)
    objective = configuration.macro("OBJECTIVE")
    assert getattr(objectives, name.split("/")[-1].removesuffix(".gin")).__doc__ == objective.__doc__
    assert configuration.macro("TD_WEIGHT") >= 0


@pytest.mark.parametrize("name", files("meshes"))
def test_meshes(name):
    configuration.load([name], complete=False)
    mesh = configuration.macro("MESH")
    assert mesh.size == jax.device_count() and mesh.axis_names == ("data", "fsdp", "tensor")


RUN_BINDINGS = ["MODEL_DIR = '/unused'", "TRAIN_STEPS = 7"]


def test_finetune_defaults():
    configuration.load(["gin/runs/finetune.gin"], [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'"])
    model = configuration.macro("MODEL")
    assert (model.emb_dim, model.num_encoder_layers, model.vocab_size) == (512, 8, 384)
    assert configuration.macro("OBJECTIVE").__doc__ == objectives.iqlearn.__doc__
    assert configuration.macro("INITIAL_CHECKPOINT_PATH") is None
    schedule = configuration.macro("LEARNING_RATE_SCHEDULE")
    np.testing.assert_allclose(
        [schedule(999), schedule(1999), schedule(10**6)], [5e-5, 1e-4, 1e-4], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["gin/runs/finetune.gin", "gin/runs/quickstart.gin"])
def test_training_runs_build_every_argument(name):
    """All that `lmirl train` would hand to the trainer is made; gin resolves references when bindings are read."""
    configuration.load([name], [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'"])
    arguments = gin.get_bindings(training.train)
    assert {"model", "objective", "optimizer", "data", "mesh", "td_weight", "evaluations"} <= set(arguments)
    assert arguments["train_steps"] == 7 and len(arguments["evaluations"]) == 2
    assert arguments["data"].num_examples > 1000


@pytest.mark.parametrize("name", ["gin/runs/eval.gin", "gin/runs/infer.gin", "gin/runs/quickstart_eval.gin"])
def test_runs_over_a_checkpoint(name):
    bindings = [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'", "CHECKPOINT_PATH = '/unused'"]
    configuration.load(["gin/runs/quickstart.gin", name], bindings)
    assert configuration.macro("CHECKPOINT_PATH") == "/unused"
    text = configuration.resolved()
    assert "number_paths" in text and "CHECKPOINT_PATH" in text

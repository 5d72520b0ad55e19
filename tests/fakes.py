"""A run's folder without its training: a configuration and a checkpoint of initial parameters."""

import contextlib
import pathlib

import jax
import optax
from etils import epath

from lmirl_jax import configuration, sharding
from lmirl_jax.checkpoints import CheckpointConfig, Checkpoints
from lmirl_jax.training.state import init_state, state_shardings

SMALL = ["models.T5Config.emb_dim = 16", "models.T5Config.mlp_dim = 32", "models.T5Config.num_heads = 2"]


def make_run(folder: pathlib.Path, *bindings: str, seed: int = 0, step: int = 3) -> pathlib.Path:
    """On number_paths, with a smaller model, unless the bindings say otherwise."""
    with configuration.restore_afterwards():
        given = [f"MODEL_DIR = '{folder}'", *SMALL, *bindings]
        configuration.load(["gin/runs/number_paths.gin"], given)
        model, text = configuration.macro("MODEL"), configuration.config_text()
    mesh, optimizer, key = sharding.make_mesh(), optax.sgd(0.1), jax.random.key(seed)
    state = init_state(state_shardings(mesh, model, optimizer)[1], model, optimizer, key)
    with contextlib.closing(Checkpoints(epath.Path(folder), CheckpointConfig())) as saved:
        saved.save(step, state, {})
    (folder / "config.gin").write_text(text)
    return folder

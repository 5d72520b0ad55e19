"""The optimizer's state on the hosts: the same numbers, there before and after an update, saved and resumed."""

import jax
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, training
from tests.training.fakes import TINY, FakeData, mesh_of

OPTIMIZERS = {
    "adamw": lambda: optax.adamw(1e-2),
    "adafactor": lambda: training.adafactor(1e-2),
}


def run(folder, steps, optimizer, offload, on_nonfinite="stop"):
    return training.train(
        model_dir=str(folder),
        train_steps=steps,
        model=TINY,
        learner=training.Offline(objectives.mle),
        optimizer=OPTIMIZERS[optimizer](),
        data=FakeData(),
        mesh=mesh_of(2, 1, 2, 1),
        offload_optimizer=offload,
        faults=training.FaultConfig(on_nonfinite=on_nonfinite),
        tensorboard=False,
    )


def kinds(state) -> set[str]:
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}


@pytest.mark.parametrize(("optimizer", "on_nonfinite"), [("adamw", "stop"), ("adafactor", "skip")])
def test_it_is_the_same_run(tmp_path, optimizer, on_nonfinite):
    ours = run(tmp_path / "host", 3, optimizer, True, on_nonfinite)
    theirs = run(tmp_path / "device", 3, optimizer, False, on_nonfinite)
    assert kinds(ours) == {"pinned_host"} and kinds(theirs) == {"device"}
    assert {leaf.sharding.memory_kind for leaf in jax.tree.leaves(ours.params)} == {"device"}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(ours), jax.device_get(theirs))


def test_it_is_resumed_there_and_elsewhere(tmp_path):
    whole = run(tmp_path / "whole", 4, "adamw", True)
    for offload in (True, False):
        folder = tmp_path / str(offload)
        run(folder, 2, "adamw", True)
        again = run(folder, 4, "adamw", offload)
        assert kinds(again) == {"pinned_host" if offload else "device"}
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(whole))

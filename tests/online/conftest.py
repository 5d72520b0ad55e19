"""What the learners' tests share: a tiny model without dropout, prompts in memory, and some updates on a mesh."""

import dataclasses

import jax
import optax
import pytest

from lmirl_jax import sharding
from lmirl_jax.training.learner import Setting
from lmirl_jax.training.state import init_state
from tests.training.fakes import TINY, FakeData, global_batch, mesh_of

MODEL = dataclasses.replace(TINY, dropout_rate=0.0)


class Prompts(FakeData):
    """The fake training set, as prompts that can be read: a text is its tokens as numbers."""

    def __init__(self, batch_size: int = 16):
        super().__init__(batch_size)
        self.lengths = {"inputs": 7, "targets": 6}

    def decode_inputs(self, tokens) -> str:
        return " ".join(str(int(token)) for token in tokens if token)

    decode = decode_inputs


@pytest.fixture(scope="session")
def prompts():
    return Prompts


@pytest.fixture(scope="session")
def updates_of():
    """Makes some updates with a learner: the last state, and the metrics of each."""

    # Adam divides rounding by rounding where a gradient is all but 0: equalities are compared without it.
    def run(learner, mesh=None, steps=2, microbatches=1, rows=16, model=MODEL, optimizer=optax.sgd(0.1)):
        mesh = mesh or mesh_of(1, 1, 1, 1)
        setting = Setting(model, optimizer, mesh, jax.random.key(0), rows, microbatches)
        with sharding.use(mesh):
            updates = learner.start(setting)
            state = init_state(updates.shardings, model, setting.optimizer, setting.key, extra=updates.extra)
            history = []
            for step in range(1, steps + 1):
                if updates.draws_before(step):
                    state = updates.draw(state)
                state, metrics = updates.step(state, global_batch(mesh, step, rows))
                history.append(jax.device_get(metrics))
        return jax.device_get(state), history

    return run

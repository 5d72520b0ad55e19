"""What the learners' tests share: some updates on a mesh."""

import jax
import optax
import pytest

from lmirl_jax import sharding
from lmirl_jax.training.learner import Setting
from lmirl_jax.training.state import init_state
from tests.online.fakes import MODEL
from tests.training.fakes import global_batch, mesh_of


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

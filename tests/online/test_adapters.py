"""Online learners with adapters: the base without them is the first policy and the other networks' trunk; nothing is copied."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, online, training
from lmirl_jax.models import LoRAConfig
from lmirl_jax.models.trainable import frozen, trainable
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.training import Setting
from tests.online import fakes
from tests.online.fakes import Prompts
from tests.online.test_policy_gradient import RECIPES, favourite
from tests.training.fakes import make_batch, mesh_of

MODEL = LoRAConfig(fakes.MODEL, rank=2, alpha=8.0)


def iqlearn():
    return online.OnlineIQLearn(objectives.iqlearn, online.Rollouts(Prompts()), 0.1)


LEARNERS = {**RECIPES, "iqlearn": iqlearn}


@pytest.fixture(scope="module", params=LEARNERS)
def recipe(request, updates_of):
    return LEARNERS[request.param], updates_of(LEARNERS[request.param](), model=MODEL)


def test_the_base_stays_and_is_stored_once(recipe):
    _, (state, history) = recipe
    assert np.isfinite([metrics["loss"] for metrics in history]).all()
    first = training.state.init_params(MODEL, jax.random.key(0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), frozen(state.params), frozen(first)
    )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), trainable(state.params), trainable(first))
    assert max(jax.tree.leaves(moved)) > 0
    assert "reference" not in state.extra
    for name in set(state.extra) - {"replay"}:
        assert frozen(state.extra[name].params) == {}
        assert set(state.extra[name].params) == {"trunk", "heads"}


# One of each learner; tests/online/test_policy_gradient.py has all on meshes, without adapters.
@pytest.mark.parametrize("recipe", ["iqlearn", "gail", "grpo"], indirect=True)
def test_a_mesh_equals_one_device(recipe, updates_of):
    make, (alone, history) = recipe
    state, sharded = updates_of(make(), mesh_of(8, 2, 2, 2), model=MODEL)
    np.testing.assert_allclose(
        [m["loss"] for m in sharded], [m["loss"] for m in history], atol=1e-5, rtol=2e-3
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=5e-4),
        trainable(state.params),
        trainable(alone.params),
    )


def test_the_kl_is_from_the_base(updates_of):
    """The same as with a copy of the first policy, which is the same function; and 0 before the first update."""
    learner = online.PolicyGradient(
        online.Rollouts(Prompts(4), samples_per_prompt=4),
        online.RewardFunction(favourite),
        Loss(objectives.leave_one_out, kl_weight=0.1),
    )
    state, history = updates_of(learner, model=MODEL, rows=4, steps=4, optimizer=optax.sgd(1.0))
    assert abs(history[0]["kl"]) < 1e-6 and history[-1]["kl"] > 1e-5
    setting = Setting(MODEL, optax.sgd(0.1), mesh_of(1, 1, 1, 1), jax.random.key(0), 4)
    batch = jax.tree.map(jnp.asarray, make_batch(0, 4))
    base = fakes.MODEL.build(jax.random.key(0))
    np.testing.assert_allclose(
        setting.first_policy(state).hidden(batch), base.hidden(batch), atol=1e-4, rtol=1e-4
    )

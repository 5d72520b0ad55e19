"""The reward that a frozen network implies: of whole, truncated and empty rows; on any mesh, resumed, and learnt from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import objectives, online, sharding, soft_q
from lmirl_jax.models.abstract import build
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.batches import rollout_batch_of, rollouts_of
from tests.online import fakes
from tests.online.fakes import MODEL, Prompts, lines
from tests.training.fakes import mesh_of

INPUTS = jnp.array([[7, 8, 0], [9, 0, 0], [9, 6, 5], [4, 0, 0]])
TOKENS = jnp.array([[5, 9, 1, 0], [5, 6, 7, 8], [1, 0, 0, 0], [5, 1, 0, 0]])


@dataclasses.dataclass(frozen=True)
class Frozen:
    """As `runs.Policy` is; parameters without a place go to any mesh."""

    graph: nnx.GraphDef
    params: Any
    discount: float = 1.0


def network(seed: int, **changes) -> Frozen:
    key = jax.random.key(seed)
    params = jax.tree.map(
        lambda x: 3 * x, init_params(MODEL, key)
    )  # Else all tokens are all but equally likely.
    return Frozen(build(MODEL)[0], params, **changes)


def read(frozen: Frozen, discount: float = 1.0):
    """q, v and log pi of each token of the answers, in numpy."""
    batch = rollout_batch_of(INPUTS, TOKENS, discount)
    out = jax.jit(lambda params: soft_q.from_model(nnx.merge(frozen.graph, params), batch))(frozen.params)
    q, v = np.asarray(out.q), np.asarray(out.v)
    return q, v, q - v


def score(mesh=None, **arguments):
    mesh = mesh or mesh_of(4, 2, 2, 1)
    rows = sharding.batch_sharding(mesh)
    rollouts = jax.device_put(rollouts_of(INPUTS, TOKENS), rows)
    with sharding.use(mesh):
        scored = online.FrozenReward(**arguments).score(rollouts, Prompts(4), mesh)
    assert scored.rewards.sharding.is_equivalent_to(rows, 2)
    return np.asarray(scored.rewards)


def test_each_token_has_the_reward_that_q_implies():
    q, v, _ = read(network(0))
    expected = np.zeros((4, 4))
    expected[0, :3] = [q[0, 0] - 0.9 * v[0, 1], q[0, 1] - 0.9 * v[0, 2], q[0, 2]]
    expected[1, :3] = [q[1, t] - 0.9 * v[1, t + 1] for t in range(3)]  # Cut off: its last token has none.
    expected[2, 0] = q[2, 0]
    expected[3, :2] = [q[3, 0] - 0.9 * v[3, 1], q[3, 1]]
    np.testing.assert_allclose(score(policy=network(0, discount=0.9)), expected, atol=1e-5)
    np.testing.assert_allclose(score(policy=network(0), discount=0.9), expected, atol=1e-5)


def test_whole_answers_return_value_and_likelihood():
    _, v, log_probs = read(network(0))
    lengths = {0: 3, 2: 1, 3: 2}
    for shaping, first in ((None, 1.0), ("value", 0.0)):
        rewards = score(policy=network(0), shaping=shaping)
        for row, length in lengths.items():
            total = first * v[row, 0] + log_probs[row, :length].sum()
            np.testing.assert_allclose(rewards[row].sum(), total, atol=1e-5)


def test_shaped_each_token_has_its_log_prob_and_one_cut_off_has_none_at_its_end():
    rewards = score(policy=network(0), shaping="value", discount=0.7)
    _, _, log_probs = read(network(0))
    np.testing.assert_allclose(rewards[1], [*log_probs[1, :3], 0], atol=1e-5)
    np.testing.assert_allclose(rewards[0], [*log_probs[0, :3], 0], atol=1e-5)


def test_a_reference_corrects_where_there_is_a_reward():
    other = network(1)
    _, _, log_probs = read(other)
    difference = score(policy=network(0)) - score(policy=network(0), reference=other, beta=0.5)
    real = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(difference, 0.5 * real * log_probs, atol=1e-5)


def learner(advantages=objectives.group_relative, **loss):
    rollouts = {"samples_per_prompt": 2, "sample_every": 2}
    return online.PolicyGradient(
        online.Rollouts(Prompts(8), **rollouts),
        online.FrozenReward(network(7), reference=network(8), beta=0.1),
        Loss(advantages, whiten=False, kl_weight=0.1, **loss),
        optax.sgd(0.1),
    )


@pytest.mark.parametrize("advantages", [objectives.group_relative, objectives.gae])
def test_eight_devices_equal_one_and_no_state_holds_the_frozen_network(advantages, updates_of):
    state, history = updates_of(learner(advantages))
    spread, metrics = updates_of(learner(advantages), mesh_of(8, 2, 2, 2))
    for ours, theirs in zip(metrics, history, strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(*(x.extra["replay"].experience.answers.tokens for x in (spread, state)))
    values = {"value"} if advantages is objectives.gae else set()
    assert set(state.extra) == {"replay", "reference"} | values
    assert history[0]["samples/advantage_std"] > 0


def test_resumed_equals_uninterrupted(tmp_path):
    settings = {"model": MODEL, "learner": learner()}
    whole = fakes.train(tmp_path / "whole", 4, **settings)
    fakes.train(tmp_path / "parts", 3, **settings)
    again = fakes.train(tmp_path / "parts", 4, **settings)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(whole))
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_the_return_rises(updates_of):
    """By a learned value and a reward at every token; the log-likelihood under the frozen network, for it is shaped."""
    adam = optax.adam(1e-2)
    reward = online.FrozenReward(network(7), shaping="value")
    recipe = online.PolicyGradient(online.Rollouts(Prompts(64)), reward, Loss(objectives.gae), adam)
    _, history = updates_of(recipe, steps=24, rows=64, optimizer=adam)
    by_token = [float(m["samples/return"] / m["samples/length"]) for m in history]
    assert np.mean(by_token[-4:]) > np.mean(by_token[:2]) + 0.3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"policy": "run"}, r"policy='run' must be a trained network, as @reward/runs.load\(\) makes"),
        ({"shaping": "mean"}, "shaping='mean' must be 'value', or None"),
        ({"discount": 1.5}, r"discount=1.5 must be a number from 0 to 1"),
        ({"beta": -1}, r"beta=-1 must be a number of 0 or more"),
        ({"reference": "run"}, r"reference='run' must be a trained network, .*, or None"),
    ],
)
def test_settings_out_of_range_are_one_line(changes, line):
    with pytest.raises(UserError, match=line):
        online.FrozenReward(**{"policy": network(0)} | changes)

"""Labels in the loss: the likelihood of right answers, the TD part of all, each a mean over its own tokens."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from etils import epath

from lmirl_jax import objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_state, state_shardings
from tests.training.fakes import TINY, make_batch, mesh_of

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
STILL = dataclasses.replace(TINY, dropout_rate=0.0)


def labelled(rows=16):
    """Answers of which some are right, with rewards at their last tokens."""
    random, batch = np.random.default_rng(1), make_batch(0, rows)
    is_right = (random.random(rows) < 0.3).astype(np.float32)
    assert 0 < is_right.sum() < rows
    last = (batch.weights > 0) & (batch.discounts == 0)
    labels = np.sign(batch.weights) * is_right[:, None]
    return dataclasses.replace(batch, labels=labels, rewards=(last * labels).astype(np.float32))


def right_rows(batch):
    rows = np.flatnonzero(batch.labels[:, 0] > 0)
    return jax.tree.map(lambda x: x[rows], dataclasses.replace(batch, labels=None, rewards=None))


def update(batch, objective, td_weight=0.0, mesh=None, microbatches=1):
    mesh = mesh or mesh_of(1, 1, 1, 1)
    _, shardings = state_shardings(mesh, STILL, SGD)
    loss = training.TokenLoss(objective, td_weight)
    settings = {"graph": build(STILL)[0], "loss": loss, "optimizer": SGD, "microbatches": microbatches}
    with sharding.use(mesh):
        state = init_state(shardings, STILL, SGD, KEY)
        step = jax.jit(functools.partial(training.train_step, **settings, key=KEY))
        state, metrics = step(state, jax.device_put(batch, sharding.batch_sharding(mesh)))
    return jax.device_get(state.params), {name: float(value) for name, value in metrics.items()}


def assert_same(one, other, names):
    for name in names:
        np.testing.assert_allclose(one[1][name], other[1][name], rtol=2e-5, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one[0], other[0])


@pytest.mark.parametrize("objective", [objectives.mle, objectives.iqlearn, objectives.dft])
def test_without_a_td_part_it_is_training_on_the_right_answers(objective):
    batch = labelled()
    names = "loss", "loss_mle", "gradient_norm", "accuracy"
    assert_same(update(batch, objective), update(right_rows(batch), objective), names)


def test_the_loss_is_the_sum_of_two_means():
    """Worked out from the soft Q-values of each token."""
    batch, weight = labelled(), 0.7
    _, metrics = update(batch, functools.partial(objectives.iqlearn, reward_scale=2.0), weight)
    out = training.soft_q_config.read_soft_q(
        STILL.build(KEY), jax.tree.map(jax.numpy.asarray, batch), None, training.SoftQConfig()
    )
    q, v = np.asarray(out.q, np.float64), np.asarray(out.v, np.float64)
    real, right = batch.weights > 0, batch.labels > 0
    rewards = q - batch.discounts * np.roll(v, -1, axis=-1) - 2 * batch.rewards
    likelihood = (v - q)[right].mean()
    penalty = (batch.td_weights * rewards**2)[real].sum() / real.sum()
    np.testing.assert_allclose(metrics["loss_mle"], likelihood, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss_td"], weight * penalty, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], likelihood + weight * penalty, rtol=1e-4)


def test_parts_on_a_mesh_equal_one_device():
    batch = labelled()
    one = update(batch, objectives.iqlearn, 0.5)
    assert_same(update(batch, objectives.iqlearn, 0.5, mesh_of(8, 2, 2, 2), microbatches=2), one, one[1])


def test_nothing_is_imitated_in_a_batch_of_wrong_answers():
    batch = labelled()
    wrong = dataclasses.replace(
        batch, labels=np.zeros_like(batch.labels), rewards=np.zeros_like(batch.rewards)
    )
    _, metrics = update(wrong, objectives.mle)
    assert metrics["loss"] == 0.0 and metrics["gradient_norm"] == 0.0


class HeldOut:
    def __init__(self, batch):
        self.batch = batch

    def batches(self, size):
        for start in range(0, len(self.batch.weights), size):
            yield jax.tree.map(lambda x, start=start: x[start : start + size], self.batch), None


def test_validation_has_the_same_means_over_batches_with_unequal_shares(tmp_path):
    batch, mesh = labelled(), mesh_of(1, 1, 1, 1)
    graph, _ = build(STILL)
    _, expected = update(batch, objectives.iqlearn, 0.5)
    _, shardings = state_shardings(mesh, STILL, SGD)
    with sharding.use(mesh):
        params = init_state(shardings, STILL, SGD, KEY).params
    validation = training.Validation(HeldOut(batch), objectives.iqlearn, 0.5, batch_size=4)
    found = validation(graph, params, mesh, epath.Path(tmp_path), 0)
    for name in ("loss", "loss_mle", "loss_td", "accuracy", "reward"):
        np.testing.assert_allclose(found[f"eval/{name}"], expected[name], rtol=2e-5, err_msg=name)

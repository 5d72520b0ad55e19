"""Online IQLearn: what it is at the ends of its scale, on any mesh and in parts, and resumed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, online, training
from lmirl_jax.online.experience import Experience
from lmirl_jax.online.replay import Replay
from lmirl_jax.rows import answers_of, prompts_of
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.online import fakes
from tests.online.fakes import MODEL, Prompts, lines
from tests.training.fakes import TINY, make_batch, mesh_of

KEY = jax.random.key(0)


def learner(alpha=0.3, rows=16, objective=objectives.iqlearn, **rollouts):
    return online.OnlineIQLearn(objective, online.Rollouts(Prompts(rows), **rollouts), 0.5, alpha)


def assert_same(one, other, rtol=2e-5, atol=2e-5):
    for ours, theirs in zip(one[1], other[1], strict=True):
        for name in ours.keys() & theirs.keys():
            np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one[0].params, other[0].params)


@pytest.fixture(scope="module")
def alone(updates_of):
    return updates_of(learner())


def test_gauges(alone):
    """On fresh answers the two log-probabilities of a token are one; lengths and shares are what they say."""
    state, history = alone
    for metrics in history:
        assert metrics["samples/age"] == 0
        assert metrics["samples/log_prob_gap"] < 1e-5
        np.testing.assert_allclose(metrics["loss"], metrics["loss_mle"] + metrics["loss_td"], rtol=1e-6)
    tokens = state.extra["replay"].experience.answers.tokens[0]
    ended = (tokens == 1).any(axis=1)
    lengths = np.where(ended, (tokens == 1).argmax(axis=1) + 1, tokens.shape[1])
    np.testing.assert_allclose(history[-1]["samples/length"], lengths.mean(), rtol=1e-6)
    np.testing.assert_allclose(history[-1]["samples/truncated"], 1 - ended.mean(), rtol=1e-6)


def test_alpha_0_is_offline(updates_of):
    """Dropout included: rollouts take no randomness from the demonstrations."""
    offline = updates_of(training.Offline(objectives.iqlearn, 0.5), model=TINY)
    assert_same(updates_of(learner(alpha=0.0), model=TINY), offline, rtol=1e-5)


def iqlearn_of(divergence):
    def iqlearn(soft_q, discounts, *, td_weight, mle_weight=1.0, penalty_weight=1.0):
        weights = {"td_weight": td_weight, "mle_weight": mle_weight, "penalty_weight": penalty_weight}
        return objectives.iqlearn(soft_q, discounts, **weights, phi=divergence)

    return iqlearn


def prepared(rollouts, objective=objectives.iqlearn):
    """A learner, a setting in which its step is the gradient, and a state whose buffer holds this batch."""
    params, optimizer = init_params(MODEL, KEY), optax.sgd(0.1)
    setting = training.Setting(
        MODEL, optimizer, mesh_of(1, 1, 1, 1), KEY, batch_size=rollouts.weights.shape[0]
    )
    answers = answers_of(rollouts)
    experience = Experience(prompts_of(rollouts), answers, jnp.zeros(answers.tokens.shape))
    buffer = Replay(jax.tree.map(lambda x: jnp.asarray(x)[None], experience), jnp.zeros(1, jnp.int32))
    state = training.TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {"replay": buffer})
    return functools.partial(online.online_step, learner=learner(objective=objective), setting=setting), state


def offline_step(step, td_weight):
    """`train_step` in the setting of an online step."""
    setting, objective = step.keywords["setting"], step.keywords["learner"].objective
    return functools.partial(
        training.train_step,
        graph=setting.graph,
        loss=training.TokenLoss(objective, td_weight),
        optimizer=setting.optimizer,
        key=setting.dropout_key,
        microbatches=1,
    )


@pytest.mark.parametrize("divergence", [objectives.chi_squared, objectives.forward_kl])
def test_rollouts_equal_to_demonstrations_give_offline_iqlearn_at_the_effective_lambda(divergence):
    """One update whose buffer holds the demonstrations of its own batch: lambda_effective is lambda / (1 - alpha) ** 2."""
    every = make_batch(1, 24)
    whole = np.arange(24) % 3 > 0  # The fake's other rows are truncated.
    batch = jax.tree.map(lambda x: jnp.asarray(x[whole]), every)
    step, state = prepared(batch, iqlearn_of(divergence))
    ours, metrics = jax.jit(step)(state, batch)
    offline = jax.jit(offline_step(step, 0.5 / 0.7**2))
    theirs, expected = offline(dataclasses.replace(state, extra=None), batch)
    for name in ("loss", "loss_td", "gradient_norm", "reward"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=2e-5, err_msg=name)
    np.testing.assert_allclose(metrics["samples/reward"], metrics["reward"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours.params, theirs.params)


def test_a_demonstration_of_weight_two_is_two_of_them():
    """Own answers count by their own number, whatever the demonstrations weigh."""
    shown = jax.tree.map(lambda x: x[:4], make_batch(1, 8))
    step, state = prepared(make_batch(2, 8))
    step = jax.jit(step)
    twice, expected = step(state, jax.tree.map(lambda x: x[np.array([0, 0, 1, 2])], shown))
    weights = shown.weights * np.float32([[2], [1], [1], [0]])
    once, metrics = step(state, dataclasses.replace(shown, weights=weights))
    for name in expected.keys() - {"target_tokens"}:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=2e-5, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), once.params, twice.params)


@pytest.mark.parametrize(("devices", "shape", "microbatches"), [(8, (2, 2, 2), 1), (4, (1, 2, 2), 2)])
def test_any_mesh_and_parts_equal_one_device(alone, updates_of, devices, shape, microbatches):
    """The same answers are drawn, and each kind of token counts by its own number over the whole batch."""
    spread = updates_of(learner(), mesh_of(devices, *shape), microbatches=microbatches)
    assert_same(spread, alone)
    one, other = (run[0].extra["replay"].experience.answers.tokens for run in (spread, alone))
    np.testing.assert_array_equal(one, other)


def test_rollouts_are_sampled_when_due_and_their_age_grows(updates_of):
    state, history = updates_of(learner(sample_every=2, replay_size=32), steps=5)
    ages = [float(metrics["samples/age"]) for metrics in history]
    assert ages[:2] == [0, 1] and 0 < ages[2] < 2
    np.testing.assert_array_equal(sorted(state.extra["replay"].born), [2, 4])
    assert history[1]["samples/log_prob_gap"] > 1e-3 > history[0]["samples/log_prob_gap"]


def train(model_dir, train_steps=5, **changes):
    settings = {"model": TINY, "learner": learner(sample_every=2, replay_size=32)}
    return fakes.train(model_dir, train_steps, **settings | changes)


def test_resumed_between_two_draws_equals_uninterrupted(tmp_path, caplog):
    """Buffer, prompts and keys are part of the checkpoint. Another learner's checkpoint is refused in one line."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    state = train(whole)
    assert "no INITIAL_CHECKPOINT_PATH, so from scratch" in caplog.text
    train(parts, train_steps=2)
    train(parts, train_steps=4)
    again = train(parts)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    assert lines(parts) == lines(whole)
    with pytest.raises(UserError, match=r"made by another learner: replay/\S+ is 2\S* there and 1\S* here"):
        train(whole, train_steps=6, learner=learner())
    with pytest.raises(
        UserError, match=r"made by another learner: replay/\S+ is 2\S* there and missing here"
    ):
        train(whole, train_steps=6, learner=training.Offline(objectives.mle))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: learner(alpha=1.0), "alpha=1.0 must be a number from 0 to below 1"),
        (
            lambda: learner(objective=objectives.mle),
            r"OBJECTIVE=mle does not take .* use @objectives.iqlearn",
        ),
        (lambda: learner(sample_every=0), "sample_every=0 must be a whole number of 1 or more"),
        (lambda: learner(samples_per_prompt=0), "samples_per_prompt=0 must be a whole number of 1 or more"),
        (lambda: learner(replay_size=24), r"REPLAY_SIZE=24 must be a multiple of the 16 answers of a draw"),
        (lambda: learner(sample_every=4, max_age=2), r"REPLAY_MAX_AGE=2 .* at least SAMPLE_EVERY - 1 = 3"),
        (lambda: learner(temperature=0), "temperature=0 must be a number above 0"),
        (lambda: online.num_prompts(6, 4), "SAMPLE_BATCH_SIZE=6 is no multiple of SAMPLES_PER_PROMPT=4"),
        (
            lambda: online.OnlineIQLearn(objectives.iqlearn, online.Rollouts(Prompts(16)), td_weight=-1),
            "td_weight=-1 must be a number of 0 or more",
        ),
    ],
)
def test_settings_out_of_range_are_one_line(make, line):
    with pytest.raises(UserError, match=line):
        make()


def test_a_draw_that_does_not_fit_the_mesh(updates_of):
    with pytest.raises(UserError, match=r"SAMPLE_BATCH_SIZE=6 cannot be split over the mesh"):
        updates_of(learner(rows=6), mesh_of(4, 4, 1, 1))

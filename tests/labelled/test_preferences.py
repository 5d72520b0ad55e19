"""The learner of preferences: what an update is, on any mesh, and what it has in common with other losses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import labelled, objectives, sharding, training
from lmirl_jax.labelled.preference_loss import answer_scores
from lmirl_jax.models import LoRAConfig
from lmirl_jax.models.abstract import build
from lmirl_jax.training.soft_q_config import read_soft_q
from lmirl_jax.training.state import init_params, init_state, state_shardings
from lmirl_jax.types import UserError
from tests.models.families import FAMILIES
from tests.training.fakes import TINY, make_batch, mesh_of

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
BETA = 0.4
ADAPTED = LoRAConfig(TINY, rank=2, alpha=8.0)
MODELS = {"t5": TINY, "adapters": ADAPTED, "qwen3": dataclasses.replace(FAMILIES["qwen3"], vocab_size=128)}


def pairs(seed=0, rows=16):
    """A batch in which each two rows answer one prompt; some answers are truncated."""
    batch = make_batch(seed, rows)
    prompts = {
        name: np.repeat(getattr(batch, name)[::2], 2, axis=0)
        for name in ("prompt_tokens", "prompt_segment_ids")
    }
    return dataclasses.replace(batch, **prompts)


def loss_of(**settings):
    preference = functools.partial(objectives.dpo, beta=BETA)
    return labelled.PreferenceLoss(preference, settings.pop("objective", objectives.mle), **settings)


def setting_of(model=TINY, mesh=None, optimizer=SGD, rows=16, microbatches=1):
    mesh = mesh or mesh_of(1, 1, 1, 1)
    together = {"rows_together": 2, "has_preferences": True}
    return training.Setting(model, optimizer, mesh, KEY, rows, microbatches, **together)


def train(loss, setting, batches):
    """The state and the metrics after an update on each batch."""
    updates, history = labelled.Preferences(loss).start(setting), []
    with sharding.use(setting.mesh):
        place = updates.shardings, setting.model, setting.optimizer, KEY
        state = init_state(*place, extra=updates.extra)
        for batch in batches:
            state, metrics = updates.step(state, jax.device_put(batch, sharding.batch_sharding(setting.mesh)))
            history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), history


def assert_same(one, other):
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert np.isfinite(list(ours.values())).all()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4, atol=2e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), one[0].params, other[0].params)


def test_the_first_update_is_that_of_the_equation():
    """h is 0 then, where dpo' is -beta / 2: the gradient is that of the log-probabilities themselves."""
    batch = pairs()
    state, (metrics,) = train(loss_of(), setting_of(), [batch])
    np.testing.assert_allclose(metrics["loss"], np.log(2), rtol=1e-5)
    assert abs(metrics["margin"]) < 1e-5 and metrics["loss_preference"] == metrics["loss"]

    params, graph = init_params(TINY, KEY), build(TINY)[0]

    def preference(params):
        out = read_soft_q(
            nnx.merge(graph, params), jax.tree.map(jnp.asarray, batch), None, training.SoftQConfig()
        )
        log_probs = jnp.sum((out.q - out.v) * batch.weights, axis=-1)
        return jnp.mean(log_probs[::2] - log_probs[1::2])

    gradients = jax.jit(jax.grad(preference))(params)
    expected = jax.tree.map(lambda p, g: p + 0.1 * BETA / 2 * g, params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, expected)


def test_updates_raise_the_margin():
    batch = pairs()
    _, history = train(loss_of(), setting_of(optimizer=optax.sgd(0.5)), [batch] * 6)
    assert history[-1]["margin"] > 0.1 and history[-1]["loss"] < history[0]["loss"] - 0.01
    assert history[-1]["preference_accuracy"] >= 0.8


@pytest.mark.parametrize("name", MODELS)
def test_parts_on_a_mesh_equal_one_device(name):
    batches = [pairs(seed) for seed in range(2)]
    alone = train(loss_of(), setting_of(MODELS[name]), batches)
    other = train(loss_of(), setting_of(MODELS[name], mesh_of(8, 2, 2, 2), microbatches=2), batches)
    assert_same(alone, other)
    assert ("reference" in alone[0].extra) == (name != "adapters")


def test_without_preferences_it_is_training_on_the_chosen_answers():
    batch = pairs()
    chosen = jax.tree.map(lambda x: x[::2], batch)
    both = {"objective": objectives.iqlearn, "td_weight": 0.3}
    weights = {"preference_weight": 0.0, "demonstration_weight": 1.0}
    state, (metrics,) = train(loss_of(**both, **weights), setting_of(), [batch])
    # Without dropout, as preferences are learnt.
    still = dataclasses.replace(TINY, dropout_rate=0.0)
    _, shardings = state_shardings(mesh_of(1, 1, 1, 1), still, SGD)
    settings = {"graph": build(still)[0], "loss": training.TokenLoss(**both), "optimizer": SGD}
    step = functools.partial(training.train_step, **settings, key=KEY, microbatches=1)
    expected, theirs = jax.jit(step)(init_state(shardings, still, SGD, KEY), chosen)
    for name in ("loss", "loss_mle", "gradient_norm"):
        np.testing.assert_allclose(metrics[name], theirs[name], rtol=1e-4, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, expected.params)


@pytest.mark.parametrize("discount, same", [(1.0, True), (0.8, False)])
def test_returns_differ_by_log_probabilities_at_gamma_one(discount, same):
    """sum_t r_t = v_0 + log pi(y): the value of the prompt is that of both answers. So the term is reference-free DPO."""
    batch = pairs()
    # Answers that end, so that no reward is missing.
    batch = dataclasses.replace(
        batch, td_weights=np.sign(batch.weights), discounts=batch.discounts * np.float32(discount)
    )
    batch = jax.tree.map(jnp.asarray, batch)
    out = read_soft_q(TINY.build(KEY), batch, None, training.SoftQConfig())
    margins = []
    for score in ("return", "log_prob"):
        scores = answer_scores(out, batch, loss_of(score=score, reference_free=True))
        margins.append(scores[::2] - scores[1::2])
    distance = np.abs(margins[0] - margins[1]).max()
    assert distance < 1e-4 if same else distance > 0.1


def test_scores_are_sums_or_means_of_the_tokens_of_answers():
    batch = pairs()
    out = read_soft_q(TINY.build(KEY), jax.tree.map(jnp.asarray, batch), None, training.SoftQConfig())
    log_probs = np.where(batch.weights > 0, np.asarray(out.q - out.v), 0.0)
    np.testing.assert_allclose(answer_scores(out, batch, loss_of()), log_probs.sum(-1), rtol=1e-5)
    means = answer_scores(out, batch, loss_of(length_normalised=True))
    np.testing.assert_allclose(means, log_probs.sum(-1) / batch.weights.sum(-1), rtol=1e-5)


def test_a_weight_of_two_is_the_pair_twice_and_of_zero_is_none():
    def of(rows, weights):
        taken = jax.tree.map(lambda x: x[np.array(rows)], pairs())
        return dataclasses.replace(taken, weights=taken.weights * np.float32(weights)[:, None])

    loss = loss_of(demonstration_weight=0.5)
    weighted = train(loss, setting_of(rows=6), [of(range(6), [2, 2, 1, 1, 0, 0])] * 2)
    twice = train(loss, setting_of(rows=6), [of([0, 1, 0, 1, 2, 3], [1] * 6)] * 2)
    for run in (weighted, twice):
        for metrics in run[1]:
            del metrics["target_tokens"], metrics["padding_share"]
    assert_same(weighted, twice)


def test_pairs_and_demonstrations_are_not_taken_for_each_other():
    demonstrations = training.Setting(TINY, SGD, mesh_of(1, 1, 1, 1), KEY, 16)
    with pytest.raises(UserError, match="the data are demonstrations alone"):
        labelled.Preferences(loss_of()).start(demonstrations)
    with pytest.raises(UserError, match="would learn rejected answers too"):
        training.Offline(objectives.mle).start(setting_of())
    with pytest.raises(UserError, match="nothing is learnt"):
        loss_of(preference_weight=0.0)

"""The learner of ILQL: an update by hand, any mesh, its target heads, and a bandit whose Q-values are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import labelled, sharding, training
from lmirl_jax.labelled.ilql_loss import ACTIONS, ilql_sums
from lmirl_jax.models import HeadsConfig, LoRAConfig
from lmirl_jax.models.abstract import build
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.training.state import init_params, init_state
from lmirl_jax.types import UserError
from tests.models.families import FAMILIES
from tests.training.fakes import TINY, make_batch, mesh_of

KEY = jax.random.key(0)
SGD = optax.sgd(0.05)
STILL = dataclasses.replace(TINY, dropout_rate=0.0)


def with_heads(base):
    return HeadsConfig(base, states=("value",), actions=ACTIONS)


MODELS = {
    "t5": with_heads(STILL),
    "dropout": with_heads(TINY),
    "qwen3": with_heads(dataclasses.replace(FAMILIES["qwen3"], vocab_size=128)),
}


def rewarded(seed=0, rows=16):
    batch = make_batch(seed, rows)
    rewards = np.random.default_rng(seed).normal(size=batch.weights.shape).astype(np.float32)
    return dataclasses.replace(
        batch, rewards=rewards * batch.td_weights, discounts=batch.discounts * np.float32(0.9)
    )


def setting_of(model=MODELS["t5"], mesh=None, optimizer=SGD, rows=16, microbatches=1, **more):
    mesh = mesh or mesh_of(1, 1, 1, 1)
    return training.Setting(model, optimizer, mesh, KEY, rows, microbatches, **{"has_rewards": True, **more})


def train(loss, setting, batches, params=None):
    """The state and the metrics after an update on each batch."""
    updates, history = labelled.ILQL(loss).start(setting), []
    with sharding.use(setting.mesh):
        place = updates.shardings, setting.model, setting.optimizer, KEY
        state = init_state(*place, params, extra=updates.extra)
        for batch in batches:
            state, metrics = updates.step(state, jax.device_put(batch, sharding.batch_sharding(setting.mesh)))
            history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), history


def filled(model, seed=5):
    """Parameters with heads that say something."""
    params = init_params(model, KEY)
    for number, leaf in enumerate(("q_1", "q_2")):
        kernel = params["heads"][leaf]["kernel"]
        params["heads"][leaf]["kernel"] = jax.random.normal(jax.random.key(seed + number), kernel.shape) / 4
    out = params["heads"]["value"]["out"]
    out["kernel"] = jax.random.normal(jax.random.key(seed), out["kernel"].shape) / 4
    return params


def test_the_loss_is_that_of_the_equation():
    """Worked out with numpy from the hidden states of each token."""
    model, batch = MODELS["t5"], rewarded()
    params = filled(model)
    module = nnx.merge(build(model)[0], params)
    hidden = np.asarray(module.hidden(jax.tree.map(jnp.asarray, batch)), np.float64)
    heads = params["heads"]

    def layer(head):
        return np.maximum(hidden @ np.asarray(head["layer"]["kernel"]) + np.asarray(head["layer"]["bias"]), 0)

    def all_values(states, kernel):
        logits = states @ np.asarray(kernel, np.float64)
        taken = np.take_along_axis(logits, batch.tokens[..., None], axis=-1)[..., 0]
        return taken, np.log(np.exp(logits).sum(-1))

    value = layer(heads["value"]) @ np.asarray(heads["value"]["out"]["kernel"])[:, 0]
    q = [all_values(layer(heads[name]), heads[name]["kernel"]) for name in ACTIONS]
    # The targets are the heads themselves before the first update.
    advantage = np.minimum(q[0][0], q[1][0]) - value
    real, mask = batch.weights, batch.td_weights
    following = batch.discounts * np.roll(value, -1, axis=-1)
    td = [mask * (taken - following - 2 * batch.rewards) ** 2 for taken, _ in q]
    cql = [everything - taken for taken, everything in q]
    expectile = mask * np.where(advantage < 0, 0.2, 0.8) * advantage**2
    taken, everything = all_values(hidden, module.unembedding().kernel)
    policy = np.minimum(np.exp(0.5 * mask * advantage), 1.2) * (everything - taken)
    total = sum(td) + 0.3 * sum(cql) + expectile + 0.6 * policy

    settings = {"tau": 0.8, "cql_weight": 0.3, "policy_weight": 0.6, "beta": 0.5, "max_weight": 1.2}
    loss = labelled.ILQLLoss(**settings, reward_scale=2.0)
    _, (metrics,) = train(loss, setting_of(model), [batch], params)
    expected = {
        "loss": total,
        "loss_q": sum(td) / 2,
        "loss_cql": sum(cql) / 2,
        "loss_value": expectile,
        "loss_policy": policy,
        "loss_mle": everything - taken,
        "value": value,
    }
    for name, values in expected.items():
        mean = (real * values).sum() / real.sum()
        np.testing.assert_allclose(metrics[name], mean, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_parts_on_a_mesh_equal_one_device(name):
    batches, loss = [rewarded(seed) for seed in range(2)], labelled.ILQLLoss(beta=0.3, target_rate=0.5)
    alone = train(loss, setting_of(MODELS[name]), batches)
    other = train(loss, setting_of(MODELS[name], mesh_of(8, 2, 2, 2), microbatches=2), batches)
    for ours, theirs in zip(alone[1], other[1], strict=True):
        assert np.isfinite(list(ours.values())).all()
        for metric in ours:
            np.testing.assert_allclose(ours[metric], theirs[metric], rtol=2e-4, atol=2e-5, err_msg=metric)
    for part in ("params", "extra"):
        mine, others = (getattr(run[0], part) for run in (alone, other))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), mine, others)


def test_target_heads_follow_by_their_rate():
    start = filled(MODELS["t5"])
    before = {name: jax.tree.map(jnp.copy, start["heads"][name]) for name in ACTIONS}
    state, _ = train(labelled.ILQLLoss(target_rate=0.25), setting_of(), [rewarded()], start)
    after = {name: state.params["heads"][name] for name in ACTIONS}
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, before, after)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.extra["target"], expected)


def test_the_policy_stays_where_its_likelihood_is_left_out():
    start = filled(MODELS["t5"])
    output = jnp.copy(start["logits_dense"]["kernel"])
    state, _ = train(labelled.ILQLLoss(policy_weight=0.0), setting_of(), [rewarded()], start)
    np.testing.assert_array_equal(state.params["logits_dense"]["kernel"], output)


def test_labels_are_read_as_rewards_alone():
    batch, loss = rewarded(), labelled.ILQLLoss()
    wrong = dataclasses.replace(batch, labels=np.zeros_like(batch.weights))
    (_, one), (_, other) = (train(loss, setting_of(), [each]) for each in (batch, wrong))
    assert one == other


def bandit(answers, rewards, prompt=(7, 8)):
    """Answers of one token, which ends them, each in a row, with its reward."""
    rows = [
        example_row(
            np.array(prompt, np.int32),
            np.array([token], np.int32),
            lengths={"inputs": 2, "targets": 2},
            eos_ids=tuple(range(128)),
            discount=1.0,
        )
        for token in answers
    ]
    batch = stack_rows(rows)
    given = np.zeros_like(batch.weights)
    given[:, 0] = rewards
    return dataclasses.replace(batch, rewards=given)


@pytest.mark.parametrize("tau, value", [(0.5, 0.4), (0.9, 1 / 1.3)])
def test_a_bandit_is_valued_right_and_guides_to_the_best_answer(tau, value):
    """Answers A, twice, with reward 0, B with 1, C, twice, with 0.5: their Q-values are these, and V is the expectile of them.

    At tau 0.9, A and C lie below it and B above: 0.9 (1 - v) = 0.1 (2 v + 2 (v - 0.5)), so that v is 1 / 1.3.
    """
    batch = bandit([10, 10, 11, 12, 12], [0.0, 0.0, 1.0, 0.5, 0.5])
    loss = labelled.ILQLLoss(tau=tau, cql_weight=0.0, target_rate=0.1)
    optimizer = optax.adam(0.01)
    setting = setting_of(optimizer=optimizer, rows=5)
    state, history = train(loss, setting, [batch] * 500)
    model = nnx.merge(build(setting.model)[0], state.params)
    rows = jax.tree.map(jnp.asarray, dataclasses.replace(batch, labels=None))
    hidden = model.hidden(rows)[:, 0]
    q = np.min([model.heads[name].layer(hidden) @ model.heads[name].kernel[...] for name in ACTIONS], axis=0)
    np.testing.assert_allclose(q[0, [10, 11, 12]], [0.0, 1.0, 0.5], atol=0.03)
    np.testing.assert_allclose(history[-1]["value"], value, atol=0.03)
    # The policy imitates; guided by Q it prefers what has a reward.
    policy = np.asarray(model.unembedding().kernel)
    logits = np.asarray(hidden)[0] @ policy
    assert logits[[10, 12]].min() > logits[11]
    guided = logits + 20 * q[0]
    assert guided[11] > guided[[10, 12]].max()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"has_rewards": False}, "the data give none"),
        ({"model": STILL}, "needs a model with the heads"),
        ({"model": LoRAConfig(with_heads(STILL), rank=2)}, "adapters .* do not go with it"),
        ({"has_preferences": True, "rows_together": 2}, "would learn rejected answers too"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        labelled.ILQL(labelled.ILQLLoss()).start(setting_of(**settings))


def test_sums_of_parts_are_those_of_the_whole():
    batch, params = rewarded(), filled(MODELS["t5"])
    model = nnx.merge(build(MODELS["t5"])[0], params)
    targets = {name: model.heads[name] for name in ACTIONS}

    def sums(rows):
        part = jax.tree.map(lambda x: jnp.asarray(x[rows]), batch)
        return ilql_sums(model, targets, part, None, labelled.ILQLLoss())

    whole, halves = sums(slice(None)), [sums(slice(0, 8)), sums(slice(8, 16))]
    added = jax.tree.map(jnp.add, *halves)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), whole, added)

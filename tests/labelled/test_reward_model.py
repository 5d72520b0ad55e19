"""Reward models: losses by hand, any mesh, what is learnt of an ensemble, and rewards of rollouts by one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from flax import nnx

from lmirl_jax import labelled, objectives, online, sharding, training
from lmirl_jax.models import HeadsConfig, LoRAConfig, reward_values
from lmirl_jax.models.abstract import build
from lmirl_jax.online.experience import Experience
from lmirl_jax.training.state import init_params, init_state, state_shardings
from lmirl_jax.types import AnswerBatch, PromptBatch, UserError
from tests.labelled.test_preferences import pairs
from tests.models.families import FAMILIES
from tests.online.fakes import Prompts
from tests.training.fakes import TINY, make_batch, mesh_of

KEY = jax.random.key(0)
SGD = optax.sgd(0.05)
STILL = dataclasses.replace(TINY, dropout_rate=0.0)
NAMES = ("reward_1", "reward_2")
LOSS = labelled.RewardLoss(functools.partial(objectives.dpo, beta=1.0))


def with_heads(base):
    return HeadsConfig(base, states=NAMES)


MODELS = {
    "t5": with_heads(STILL),
    "qwen3": with_heads(dataclasses.replace(FAMILIES["qwen3"], vocab_size=128)),
}


def labels(seed=0, rows=16):
    batch = make_batch(seed, rows)
    right = np.random.default_rng(seed).random(rows) < 0.5
    return dataclasses.replace(batch, labels=np.sign(batch.weights) * right[:, None].astype(np.float32))


DATA = {"preferences": pairs, "labels": labels}


def setting_of(kind, model=MODELS["t5"], mesh=None, optimizer=SGD, rows=16, microbatches=1, **more):
    given = {"rows_together": 2, "has_preferences": True} if kind == "preferences" else {"has_labels": True}
    mesh = mesh or mesh_of(1, 1, 1, 1)
    return training.Setting(model, optimizer, mesh, KEY, rows, microbatches, **{**given, **more})


def train(setting, batches, params=None):
    updates, history = labelled.RewardModel(LOSS).start(setting), []
    with sharding.use(setting.mesh):
        place = updates.shardings, setting.model, setting.optimizer, KEY
        state = init_state(*place, params, extra=updates.extra)
        for batch in batches:
            state, metrics = updates.step(state, jax.device_put(batch, sharding.batch_sharding(setting.mesh)))
            history.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state), history


def filled(model):
    """Parameters with heads that say something."""
    params = init_params(model, KEY)
    for number, name in enumerate(NAMES):
        out = params["heads"][name]["out"]
        out["kernel"] = jax.random.normal(jax.random.key(number), out["kernel"].shape)
    return params


def values_of(model, params, batch):
    module = nnx.merge(build(model)[0], params)
    return np.asarray(reward_values(module, jax.tree.map(jnp.asarray, batch)), np.float64)


def test_values_are_read_before_and_after_each_token():
    """The value after a token is that before the next one, and the last token of an answer changes the value after it alone."""
    model, batch = MODELS["t5"], make_batch(0, 16)
    params = filled(model)
    values = values_of(model, params, batch)
    assert values.shape == (2, 16, 7)
    last = batch.weights.sum(-1).astype(int) - 1
    tokens = batch.tokens.copy()
    tokens[np.arange(16), last] = 9
    other = values_of(model, params, dataclasses.replace(batch, tokens=tokens))
    for row, place in enumerate(last):
        np.testing.assert_allclose(values[:, row, : place + 1], other[:, row, : place + 1], atol=1e-5)
        assert np.abs(values[:, row, place + 1] - other[:, row, place + 1]).min() > 1e-4


def test_the_loss_of_preferences_is_that_of_bradley_terry():
    batch, params = pairs(), filled(MODELS["t5"])
    values = values_of(MODELS["t5"], params, batch)
    last = batch.weights.sum(-1).astype(int)
    answers = values[:, np.arange(16), last]
    margins = answers[:, ::2] - answers[:, 1::2]
    _, (metrics,) = train(setting_of("preferences"), [batch], params)
    np.testing.assert_allclose(metrics["loss"], np.log1p(np.exp(-margins)).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], (margins.mean(0) > 0).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["margin"], margins.mean(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["disagreement"], margins.std(0).mean(), rtol=1e-3)


def test_the_loss_of_labels_is_the_likelihood_after_every_token():
    batch, params = labels(), filled(MODELS["t5"])
    after = values_of(MODELS["t5"], params, batch)[..., 1:]
    sign = np.where(batch.labels > 0, 1.0, -1.0)
    losses = np.log1p(np.exp(-sign * after)).mean(0)
    real = batch.weights
    last = batch.weights.sum(-1).astype(int) - 1
    answers = after[:, np.arange(16), last].mean(0)
    _, (metrics,) = train(setting_of("labels"), [batch], params)
    np.testing.assert_allclose(metrics["loss"], (real * losses).sum() / real.sum(), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], ((answers > 0) == (batch.labels[:, 0] > 0)).mean())


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("name", MODELS)
def test_parts_on_a_mesh_equal_one_device(name, kind):
    batches = [DATA[kind](seed) for seed in range(2)]
    alone = train(setting_of(kind, MODELS[name]), batches)
    other = train(setting_of(kind, MODELS[name], mesh_of(8, 2, 2, 2), microbatches=2), batches)
    for ours, theirs in zip(alone[1], other[1], strict=True):
        assert np.isfinite(list(ours.values())).all()
        for metric in ours:
            np.testing.assert_allclose(ours[metric], theirs[metric], rtol=2e-4, atol=2e-5, err_msg=metric)
    mine, others = (run[0].params for run in (alone, other))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), mine, others)


@pytest.mark.parametrize("kind", DATA)
def test_updates_learn_the_data(kind):
    batch = DATA[kind]()
    _, history = train(setting_of(kind, optimizer=optax.adam(3e-3)), [batch] * 60)
    np.testing.assert_allclose(history[0]["loss"], np.log(2), rtol=1e-5)
    assert history[-1]["accuracy"] == 1.0 and history[-1]["loss"] < 0.4
    # Heads with different layers are different judges.
    assert history[0]["disagreement"] == 0.0 < history[-1]["disagreement"]


class HeldOut:
    def __init__(self, batch):
        self.batch, self.available = batch, 16

    def batches(self, size):
        for start in range(0, len(self.batch.weights), size):
            part = jax.tree.map(lambda x, start=start: x[start : start + size], self.batch)
            yield part, [{}] * size


@pytest.mark.parametrize("kind", DATA)
def test_validation_has_the_metrics_of_an_update(kind, tmp_path):
    batch, mesh, params = DATA[kind](), mesh_of(1, 1, 1, 1), filled(MODELS["t5"])
    _, (expected,) = train(setting_of(kind), [batch], jax.tree.map(jnp.copy, params))
    validation = labelled.RewardValidation(HeldOut(batch), LOSS, batch_size=4)
    _, shardings = state_shardings(mesh, MODELS["t5"], SGD)
    params = jax.device_put(params, shardings.params)
    found = validation(build(MODELS["t5"])[0], params, mesh, epath.Path(tmp_path), 0)
    for name in ("loss", "accuracy", "disagreement"):
        np.testing.assert_allclose(found[f"eval/rewards/{name}"], expected[name], rtol=2e-5, err_msg=name)
    assert found["eval/rewards/examples"] == 16


@dataclasses.dataclass(frozen=True)
class Policy:
    graph: object
    params: object
    model: object
    discount: float = 1.0


def test_rollouts_are_rewarded_after_their_last_token_even_if_truncated():
    model, mesh = MODELS["t5"], mesh_of(1, 1, 1, 1)
    params = filled(model)
    random = np.random.default_rng(0)
    lengths, terminal = np.array([3, 5], np.int32), np.array([True, False])
    tokens = random.integers(3, 100, (2, 5)).astype(np.int32) * (np.arange(5) < lengths[:, None])
    prompts = PromptBatch(random.integers(3, 100, (2, 4)).astype(np.int32), np.array([4, 4], np.int32))
    drawn = Experience(prompts, AnswerBatch(tokens, lengths, terminal), np.zeros((2, 5), np.float32))
    reward = online.FrozenReward(Policy(build(model)[0], params, model))
    found = np.asarray(reward.score(drawn, Prompts(4), mesh).rewards)
    batch = online.experience.rollout_batch(drawn, 1.0)
    values = values_of(model, params, batch).mean(0)
    expected = np.zeros((2, 5))
    expected[0, 2], expected[1, 4] = values[0, 3], values[1, 5]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(UserError, match="REWARD_CHECKPOINT_PATH is a reward model"):
        online.FrozenReward(Policy(build(model)[0], params, model), shaping="value")


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        ("labels", {"has_labels": False}, "the data have neither"),
        ("labels", {"has_preferences": True, "rows_together": 2}, "the data have both"),
        ("labels", {"model": STILL}, "needs a model with heads"),
        ("labels", {"model": LoRAConfig(with_heads(STILL), rank=2)}, "adapters .* do not go with it"),
        ("labels", {"model": HeadsConfig(STILL, states=("value",))}, "names begin with 'reward'"),
        ("labels", {"packed": True}, "reads one answer a row"),
    ],
)
def test_settings_that_do_not_fit(kind, settings, message):
    with pytest.raises(UserError, match=message):
        labelled.RewardModel(LOSS).start(setting_of(kind, **settings))

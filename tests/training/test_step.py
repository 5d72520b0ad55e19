"""One update: means over the global batch, whatever the mesh, the microbatches or the padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_params, init_state, state_shardings
from lmirl_jax.training.sums import weighted_sum
from lmirl_jax.types import SoftQ, UserError
from tests.training.fakes import TINY, global_batch, make_batch, mesh_of

KEY = jax.random.key(0)
STILL = dataclasses.replace(TINY, dropout_rate=0.0)


def run(
    mesh,
    *,
    objective=objectives.iqlearn,
    td_weight=0.5,
    soft_q_config=training.SoftQConfig(),
    microbatches=1,
    optimizer=None,
    steps=2,
    rows=16,
    rewards=None,
    **options,
):
    """The parameters and metrics after some steps on a mesh."""
    # Adam divides a gradient near 0 by itself, and with it the rounding that differs: this epsilon is far above both.
    optimizer = optimizer or training.adamw(1e-2, eps=1e-4)
    graph, _ = build(TINY)
    _, shardings = state_shardings(mesh, TINY, optimizer)
    step = functools.partial(
        training.train_step,
        graph=graph,
        loss=training.TokenLoss(objective, td_weight, soft_q_config),
        optimizer=optimizer,
        key=KEY,
        microbatches=microbatches,
        **options,
    )
    with sharding.use(mesh):
        state = init_state(shardings, TINY, optimizer, KEY)
        update = jax.jit(step, out_shardings=(shardings, None))
        history = []
        for seed in range(steps):
            batch = global_batch(mesh, seed, rows)
            if rewards is not None:
                placed = jax.device_put(rewards, sharding.batch_sharding(mesh))
                batch = dataclasses.replace(batch, rewards=placed)
            state, metrics = update(state, batch)
            history.append(jax.device_get(metrics))
    return jax.device_get(state.params), history


def assert_same(one, other, atol=2e-5):
    for ours, theirs in zip(one[1], other[1], strict=True):
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one[0], other[0])


@pytest.fixture(scope="module")
def alone():
    return run(mesh_of(1, 1, 1, 1))


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)])
def test_eight_devices_equal_one(alone, shape):
    assert_same(run(mesh_of(8, *shape)), alone)


def of_rows(batch, rows, weights):
    """Some rows of a batch, each with its weight."""
    taken = jax.tree.map(lambda x: x[np.array(rows)], batch)
    return dataclasses.replace(taken, weights=taken.weights * np.float32(weights)[:, None])


def one_update(batch):
    """The parameters and metrics after a step of plain descent, without dropout."""
    optimizer = optax.sgd(0.1)
    graph, _ = build(STILL)
    params = init_params(STILL, KEY)
    state = training.TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    settings = {"graph": graph, "loss": training.TokenLoss(objectives.iqlearn, 0.5), "optimizer": optimizer}
    step = jax.jit(functools.partial(training.train_step, **settings, key=KEY, microbatches=1))
    state, metrics = step(state, batch)
    return state.params, [metrics]


def without_count(run):
    counts = "target_tokens", "padding_share"
    return run[0], [{name: value for name, value in run[1][0].items() if name not in counts}]


def test_a_weight_of_two_is_the_example_twice_and_of_zero_is_none():
    """The likelihood, the penalty and the metrics: a penalty weighted twice would differ. Row 0 is truncated."""
    batch = make_batch(3, 4)
    twice = one_update(of_rows(batch, [0, 0, 1, 2, 2, 2], [1] * 6))
    weighted = one_update(of_rows(batch, [0, 1, 2, 3], [2, 1, 3, 0]))
    assert_same(without_count(weighted), without_count(twice))
    tokens = [int(batch.weights[row].sum()) for row in range(3)]
    assert weighted[1][0]["target_tokens"] == sum(tokens)
    assert twice[1][0]["target_tokens"] == 2 * tokens[0] + tokens[1] + 3 * tokens[2]
    assert_same(one_update(of_rows(batch, [0, 1, 2, 3], [0.2] * 4)), one_update(batch))  # no unit


def test_nothing_is_learnt_from_a_batch_of_weight_zero():
    batch = make_batch(3, 4)
    params, (metrics,) = one_update(of_rows(batch, [0, 1, 2, 3], [0] * 4))
    jax.tree.map(np.testing.assert_array_equal, params, init_params(STILL, KEY))
    assert metrics["loss"] == 0


def test_a_weighted_loss_by_hand():
    out = SoftQ(q=jnp.array([[1.0, 3.0]]), v=jnp.array([[2.0, 3.5]]))
    per_token = objectives.iqlearn(out, discounts=jnp.array([[1.0, 0.0]]), td_weight=0.5 * jnp.ones((1, 2)))
    # -log pi is 1 and .5; rewards are 1 - 3.5 and 3: 1 + .5 * 6.25 = 4.125 and .5 + .5 * 9 = 5.
    loss, weight = weighted_sum(per_token, jnp.array([[3.0, 1.0]]))
    assert (float(loss), float(weight)) == (3 * 4.125 + 5.0, 4.0)


def test_given_rewards_are_sharded_and_dealt_as_the_tokens_are(alone):
    """Rewards of 0 change nothing; others do, and alike on any mesh and in any parts."""
    assert_same(run(mesh_of(1, 1, 1, 1), rewards=np.zeros((16, 6), np.float32)), alone)
    rewards = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    one = run(mesh_of(1, 1, 1, 1), rewards=rewards)
    assert abs(one[1][0]["loss"] - alone[1][0]["loss"]) > 1e-2
    assert_same(run(mesh_of(8, 2, 2, 2), rewards=rewards), one)
    assert_same(run(mesh_of(4, 2, 2, 1), microbatches=2, rewards=rewards), one)


def test_rows_that_belong_together_may_be_kept_in_one_part(alone):
    assert_same(run(mesh_of(2, 2, 1, 1), microbatches=2, rows_together=4), alone)


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_equal_the_full_batch(alone, microbatches):
    """With dropout, and targets of unequal length: a mean of means would differ."""
    assert_same(run(mesh_of(1, 1, 1, 1), microbatches=microbatches), alone)
    assert_same(run(mesh_of(4, 2, 2, 1), microbatches=microbatches), alone)


@pytest.mark.parametrize(
    ("devices", "shape", "microbatches"), [(1, (1, 1, 1), 1), (8, (2, 2, 2), 1), (4, (1, 2, 2), 2)]
)
def test_blocks_equal_dense(alone, devices, shape, microbatches):
    """Whatever the mesh and the microbatches; five tokens do not divide a device's share."""
    blocks = training.SoftQConfig(block_size=5)
    assert_same(run(mesh_of(devices, *shape), soft_q_config=blocks, microbatches=microbatches), alone)


@pytest.mark.parametrize("block_size", [0, 7])
def test_objectives_are_given_what_they_need(block_size):
    """A temperature from the configuration, the sum of logits and the vocabulary's size, without their asking."""
    batch = jax.tree.map(jnp.asarray, make_batch(0, 4))
    model = TINY.build(KEY)
    logits = np.asarray(model.hidden(batch) @ model.unembedding().kernel, np.float64)
    log_pi = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    taken = np.take_along_axis(log_pi, batch.tokens[..., None], -1)[..., 0]

    def mean(objective, **config):
        config = training.SoftQConfig(block_size=block_size, **config)
        sums = training.loss_sums(model, objective, batch, jnp.float32(0), soft_q_config=config)
        assert sums["loss_td"][0] == 0
        return sums["loss"][0] / sums["loss"][1]

    tempered = 0.7 * np.log(np.exp(logits / 0.7).sum(-1))
    gem = tempered - np.take_along_axis(logits, batch.tokens[..., None], -1)[..., 0]
    weights = batch.weights / batch.weights.sum()
    np.testing.assert_allclose(
        mean(objectives.gem, temperature=0.7), np.sum(weights * gem), rtol=1e-5, atol=1e-5
    )
    other = 0.1 / 127
    smoothed = -0.9 * taken - other * (log_pi.sum(-1) - taken) + 0.9 * np.log(0.9) + 0.1 * np.log(other)
    mle = functools.partial(objectives.mle, label_smoothing=0.1)
    np.testing.assert_allclose(mean(mle), np.sum(weights * smoothed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"block_size": -1}, r"block_size=-1 must be a whole number"),
        ({"temperature": 0.0}, r"temperature=0.0 must be a number above 0"),
    ],
)
def test_settings_out_of_range_are_one_line(setting, line):
    with pytest.raises(UserError, match=line):
        training.SoftQConfig(**setting)


def test_adafactor_on_a_mesh_equals_one_device():
    optimizer = training.adafactor(1e-2, min_dim_size_to_factor=8)
    assert_same(run(mesh_of(8, 2, 2, 2), optimizer=optimizer), run(mesh_of(1, 1, 1, 1), optimizer=optimizer))


def test_every_parameter_and_moment_is_sharded():
    mesh = mesh_of(8, 1, 4, 2)
    _, shardings = state_shardings(mesh, TINY, training.adamw(1e-2))
    specs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): place.spec
        for path, place in jax.tree_util.tree_leaves_with_path((shardings.params, shardings.opt_state))
    }
    spec = jax.sharding.PartitionSpec
    queries = [s for name, s in specs.items() if name.endswith("encoder/layers/attention/query/kernel")]
    assert queries == [spec(None, "fsdp", "tensor", None)] * 3  # the parameter and both moments
    embeddings = [s for name, s in specs.items() if name.endswith("token_embedder")]
    assert embeddings == [spec("tensor", "fsdp")] * 3


def test_metrics_are_means_over_real_tokens():
    """Against sums written out, without dropout: the model's own numbers, token by token."""
    batch = jax.tree.map(jnp.asarray, make_batch(0, 16))
    model = TINY.build(KEY)
    sums = training.loss_sums(model, objectives.iqlearn, batch, jnp.float32(0.5))
    metrics = {name: float(total / weight) for name, (total, weight) in sums.items()}
    logits = np.asarray(model.hidden(batch) @ model.unembedding().kernel, np.float64)
    v = np.log(np.exp(logits).sum(-1))
    nll, rewards, hits = [], [], []
    for row in range(16):
        size = int(batch.weights[row].sum())
        for t in range(size):
            token = int(batch.tokens[row, t])
            nll.append(v[row, t] - logits[row, t, token])
            hits.append(logits[row, t].argmax() == token)
            if t < size - 1:
                rewards.append(logits[row, t, token] - v[row, t + 1])
            elif token == 1:
                rewards.append(logits[row, t, token])
    np.testing.assert_allclose(metrics["loss_mle"], np.mean(nll), rtol=1e-5)
    np.testing.assert_allclose(metrics["reward"], np.mean(rewards), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(hits), atol=1e-6)
    td = 0.5 * np.sum(np.square(rewards)) / len(nll)
    np.testing.assert_allclose(metrics["loss_td"], td, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], np.mean(nll) + td, rtol=1e-4)


def test_mle_has_no_td_part_and_lambda_may_be_a_schedule():
    mesh = mesh_of(1, 1, 1, 1)
    _, history = run(mesh, objective=objectives.mle, td_weight=0.5)
    assert [m["loss_td"] for m in history] == [0.0, 0.0]
    assert history[0]["loss"] == history[0]["loss_mle"]
    _, history = run(mesh, td_weight=training.delayed_constant(0.3, start_step=1), steps=2)
    np.testing.assert_allclose([m["td_weight"] for m in history], [0.0, 0.3], atol=1e-7)
    assert history[0]["loss_td"] == 0.0 < history[1]["loss_td"]


def test_gradients_are_clipped_to_the_global_norm():
    """One step of plain size: Adam's first update is the learning rate, so look at the clip itself."""
    optimizer = training.adamw(1.0, clip_norm=0.5)
    params = {"a": jnp.array([3.0, 4.0])}
    state = optimizer.init(params)
    _, clipped = optimizer.update({"a": jnp.array([30.0, 40.0])}, state, params)
    _, small = optimizer.update({"a": jnp.array([0.3, 0.4])}, state, params)
    moments = [jax.tree.leaves(s)[-2:] for s in (clipped, small)]
    np.testing.assert_allclose(moments[0], moments[1], rtol=1e-5)


def test_parameters_do_not_depend_on_the_mesh_they_were_made_on():
    optimizer = training.adamw(1e-2)
    states = []
    for mesh in (mesh_of(1, 1, 1, 1), mesh_of(8, 1, 4, 2)):
        _, shardings = state_shardings(mesh, TINY, optimizer)
        states.append(jax.device_get(init_state(shardings, TINY, optimizer, KEY).params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *states)
    nnx.merge(build(TINY)[0], states[0])

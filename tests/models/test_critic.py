"""Scalar heads on a trunk: what each output may depend on, how they start, the same numbers on any mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import objectives, sharding
from lmirl_jax.models import CriticConfig, T5Config, critic_params, gradient_penalty, offset_gradients
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_state, state_shardings
from lmirl_jax.types import ModelConfig, NetworkConfig, UserError
from tests.batches import batch_of
from tests.models.families import decoder_only, initial
from tests.training.fakes import make_batch, mesh_of

TINY = T5Config(
    vocab_size=128, emb_dim=8, num_heads=4, head_dim=4, mlp_dim=16, num_encoder_layers=2, num_decoder_layers=2
)
# Embeddings of a usual size, beside which the steps of finite differences are small.
DECODER_ONLY = decoder_only(emb_dim=8, vocab_size=128, scaled_embeddings=True)
CONFIG = CriticConfig(TINY, ("value", "discriminator"))
KEY = jax.random.key(0)


BATCH = batch_of([[5, 6, 7, 8, 1, 0], [9, 3, 1, 0, 0, 0]], [[11, 12, 13, 1], [21, 22, 1, 0]])


def built(config):
    graph, state = build(config)
    nnx.replace_by_pure_dict(state, initial(config))
    return nnx.merge(graph, state)


@functools.partial(jax.jit, static_argnums=0)
def compiled(graph, state, *args):
    return nnx.merge(graph, state)(*args)


def outputs_of(critic, *args):
    return compiled(*nnx.split(critic), *args)


def with_heads(config: CriticConfig):
    """A critic whose heads are no longer zero."""
    critic = built(config)
    for number, name in enumerate(config.heads):
        head, key = critic.heads[name], jax.random.fold_in(KEY, number)
        head.kernel[...] = 0.5 * jax.random.normal(key, head.kernel.shape)
        head.bias[...] = jnp.array([0.25])
    return critic


@pytest.fixture(scope="module", params=[TINY, DECODER_ONLY], ids=["encoder-decoder", "decoder-only"])
def critic(request):
    return with_heads(CriticConfig(request.param, CONFIG.heads))


def test_values_and_logits_are_exactly_0_at_the_start():
    outputs = outputs_of(built(CONFIG), BATCH, jax.random.split(KEY, 2))
    assert set(outputs) == {"value", "discriminator"}
    for output in outputs.values():
        assert output.dtype == jnp.float32
        np.testing.assert_array_equal(output, np.zeros((2, 5)))


def test_at_the_start_no_length_pays():
    """EOS at once, and an answer cut at the maximal length: no reward and no advantage, whatever the network reads."""
    batch = batch_of([[5, 6, 1], [5, 6, 1]], [[1, 0, 0, 0], [11, 12, 13, 14]])
    outputs = outputs_of(built(CONFIG), batch)
    rewards = objectives.softplus_reward(outputs["discriminator"][:, 1:])
    values = outputs["value"]
    continues = jnp.array([[False] * 4, [True, True, True, False]])
    discounts = jnp.array([[0.0] * 4, [1.0] * 4])
    np.testing.assert_array_equal(rewards, 0.0)
    np.testing.assert_array_equal(
        objectives.gae(rewards, values[:, :-1], values[:, 1:], discounts, continues), 0.0
    )


def test_outputs_are_affine_in_the_models_hidden_states(critic):
    """Of the policy with the same trunk: output t is read off the hidden state that predicts token t + 1."""
    policy = built(critic.config.trunk)
    fresh = nnx.to_pure_dict(nnx.state(critic))
    params = critic_params(nnx.to_pure_dict(nnx.state(policy)), fresh)
    graph, state = nnx.split(critic)
    nnx.replace_by_pure_dict(state, params)
    found = outputs_of(nnx.merge(graph, state), BATCH)
    hidden = policy.hidden(BATCH)
    for name, output in found.items():
        head = critic.heads[name]
        by_hand = hidden @ head.kernel[...][:, 0] + 0.25
        real = np.asarray(BATCH.weights > 0)
        np.testing.assert_allclose(output[:, :-1][real], by_hand[real], atol=1e-5)


def test_causality_by_gradient(critic):
    """Output t depends on y_1 .. y_t: the logit of token 2 on it and those before, its value on those before alone."""

    def slope(start, name, position):
        return jax.grad(lambda offset: outputs_of(critic, BATCH, None, offset)[name][0, position])(start)

    start = jnp.zeros((2, 4, 8))
    logit_of_2 = slope(start, "discriminator", 1 + 1)  # Of y_2: after it went in.
    assert np.all(np.any(logit_of_2[0, :2] != 0, axis=-1))
    np.testing.assert_array_equal(logit_of_2[0, 2:], 0.0)
    np.testing.assert_array_equal(logit_of_2[1], 0.0)
    value_of_2 = slope(start, "value", 1)  # Of the state in which y_2 was chosen.
    assert np.any(value_of_2[0, 0] != 0)
    np.testing.assert_array_equal(value_of_2[0, 1:], 0.0)
    assert np.any(slope(start, "discriminator", 4)[0, 3] != 0)  # EOS is judged.
    np.testing.assert_array_equal(slope(start, "value", 0), 0.0)


def test_padding_changes_nothing(critic):
    longer = batch_of(
        np.pad(BATCH.prompt_tokens, ((0, 0), (0, 3))),
        np.pad(BATCH.tokens, ((0, 0), (0, 2))),
    )
    for short, long in zip(
        outputs_of(critic, BATCH).values(), outputs_of(critic, longer).values(), strict=True
    ):
        real = np.asarray(jnp.pad(BATCH.weights, ((0, 0), (1, 0)), constant_values=1) > 0)
        np.testing.assert_allclose(long[:, :5][real], short[real], atol=1e-5)


def test_the_trunk_is_copied_and_the_heads_are_fresh():
    policy = jax.tree.map(lambda x: 2 * x, initial(TINY))
    fresh = initial(CONFIG)
    params = critic_params(policy, fresh)
    assert jax.tree.structure(params) == jax.tree.structure(fresh)
    assert "logits_dense" in policy and set(params["trunk"]) == set(policy) - {"logits_dense"}
    shared = {name: policy[name] for name in params["trunk"]}
    jax.tree.map(np.testing.assert_array_equal, params["trunk"], shared)
    for ours, theirs in zip(jax.tree.leaves(params["trunk"]), jax.tree.leaves(shared), strict=True):
        assert ours.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()
    jax.tree.map(np.testing.assert_array_equal, params["heads"], fresh["heads"])


def test_a_trunk_is_the_model_without_its_unembedding():
    trunk, model = nnx.jit(lambda: TINY.build_trunk(KEY))(), built(TINY)
    assert not hasattr(trunk, "unembedding")
    np.testing.assert_array_equal(trunk.hidden(BATCH), model.hidden(BATCH))
    assert isinstance(CONFIG, NetworkConfig) and not isinstance(CONFIG, ModelConfig)


def loss(params, graph, batch):
    """Something of every kind: both heads, the penalty, dropout."""
    critic = nnx.merge(graph, params)
    keys = jax.random.split(KEY, batch.weights.shape[0])
    outputs = critic(batch, keys)
    fit = objectives.discriminator_loss(outputs["discriminator"][:, 1:], batch.tokens > 50)
    fit += objectives.value_loss(outputs["value"][:, :-1], batch.weights)
    return jnp.sum(batch.weights * fit) + jnp.sum(
        gradient_penalty(critic, batch, "discriminator", dropout_keys=keys)
    )


def test_eight_devices_equal_one():
    def run(mesh):
        graph, _ = build(CONFIG)
        optimizer = optax.sgd(0.1)
        _, shardings = state_shardings(mesh, CONFIG, optimizer)
        with sharding.use(mesh):
            params = init_state(shardings, CONFIG, optimizer, KEY).params
            heads = {
                name: jax.tree.map(lambda x: x + 0.1 * jnp.arange(1.0, 1 + x.size).reshape(x.shape), head)
                for name, head in params["heads"].items()
            }
            params = jax.device_put({**params, "heads": heads}, shardings.params)
            batch = sharding.to_global(mesh, make_batch(0, 16), 16)
            step = jax.jit(
                lambda p, b: jax.value_and_grad(loss)(p, graph, b), out_shardings=(None, shardings.params)
            )
            return jax.device_get(step(params, batch))

    (alone, one), (together, eight) = run(mesh_of(1, 1, 1, 1)), run(mesh_of(8, 2, 2, 2))
    np.testing.assert_allclose(together, alone, rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), eight, one)


def test_heads_follow_their_logical_axes():
    _, state = build(CONFIG)
    specs = sharding.parameter_shardings(mesh_of(8, 2, 2, 2), state)["heads"]["value"]
    assert specs["kernel"].spec == jax.sharding.PartitionSpec("fsdp", None)


def test_offset_gradients_against_finite_differences(critic):
    gradients = offset_gradients(critic, BATCH, "discriminator")
    np.testing.assert_array_equal(gradients[1, 3], 0.0)  # Padding.
    directions = jax.random.normal(KEY, (2, 4, 8))
    step = 2e-3

    def summed(size):
        logits = outputs_of(critic, BATCH, None, size * directions)["discriminator"][:, 1:]
        return jnp.sum(BATCH.weights * logits, axis=1)

    by_differences = (summed(step) - summed(-step)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(gradients * directions, axis=(1, 2)), by_differences, rtol=2e-3)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_gradient_of_the_penalty_against_finite_differences(remat):
    """Second derivatives through the scanned, rematerialised layers, with dropout."""
    config = dataclasses.replace(CONFIG, trunk=dataclasses.replace(TINY, remat=remat))
    graph, state = nnx.split(with_heads(config))
    params = nnx.to_pure_dict(state)
    keys = jax.random.split(jax.random.key(3), 2)

    @jax.jit
    def penalty(params):
        return jnp.sum(gradient_penalty(nnx.merge(graph, params), BATCH, "discriminator", dropout_keys=keys))

    gradients = jax.jit(jax.grad(penalty))(params)
    leaves, structure = jax.tree.flatten(params)
    drawn = jax.random.split(KEY, len(leaves))
    directions = jax.tree.unflatten(
        structure, [jax.random.normal(k, x.shape) * jnp.std(x) for k, x in zip(drawn, leaves)]
    )
    step = 3e-3
    ahead, behind = (
        penalty(jax.tree.map(lambda x, d, s=size: x + s * d, params, directions)) for size in (step, -step)
    )
    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), gradients, directions)))
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=1e-2)
    np.testing.assert_array_equal(gradients["heads"]["value"]["kernel"], 0.0)
    np.testing.assert_array_equal(gradients["heads"]["discriminator"]["bias"], 0.0)


def test_the_penalty_of_an_affine_score_by_hand(critic):
    """The sum of squares, of the summed outputs that the weights name, each row for itself."""
    last = jnp.array([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    gradients = offset_gradients(critic, BATCH, "value", weights=last)

    def score(offset, row, position):
        return outputs_of(critic, BATCH, None, offset)["value"][row, position]

    zero = jnp.zeros((2, 4, 8))
    by_hand = jax.grad(score)(zero, 0, 4) + jax.grad(score)(zero, 1, 3)
    np.testing.assert_allclose(gradients, by_hand, atol=1e-5)
    penalty = gradient_penalty(critic, BATCH, "value", weights=last)
    np.testing.assert_allclose(penalty, np.sum(np.asarray(by_hand) ** 2, axis=(1, 2)), rtol=1e-4)


def test_a_bfloat16_trunk_has_float32_outputs():
    config = dataclasses.replace(CONFIG, trunk=dataclasses.replace(TINY, dtype="bfloat16"))
    outputs = outputs_of(with_heads(config), BATCH)
    assert {output.dtype for output in outputs.values()} == {jnp.dtype("float32")}
    for rough, exact in zip(outputs.values(), outputs_of(with_heads(CONFIG), BATCH).values(), strict=True):
        np.testing.assert_allclose(rough, exact, atol=0.2)


def test_errors(critic):
    with pytest.raises(UserError, match="a batch that is not packed"):
        critic(dataclasses.replace(BATCH, segment_ids=jnp.array([[1, 1, 2, 2]] * 2)))
    for heads in ((), ("value", "value")):
        with pytest.raises(UserError, match="one or more different names"):
            CriticConfig(TINY, heads)
    fresh = initial(CONFIG)
    with pytest.raises(UserError, match=r"it needs decoder/\S+ of shape .*, the policy lacks it"):
        critic_params({}, fresh)
    smaller = initial(dataclasses.replace(TINY, vocab_size=64))
    with pytest.raises(UserError, match=r"token_embedder of shape \(128, 8\), the policy has \(64, 8\)"):
        critic_params(smaller, fresh)

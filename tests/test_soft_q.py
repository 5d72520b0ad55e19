"""soft_q against values worked out by hand, optax and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from lmirl_jax import soft_q
from lmirl_jax.models import DecoderOnlyConfig, T5Config
from lmirl_jax.objectives import iqlearn
from lmirl_jax.objectives.inverse_q import implied_rewards
from lmirl_jax.rows import empty_row, example_row, mark_turns, put_example, stack_rows
from lmirl_jax.types import Unembedding
from tests.batches import batch_of

# exp(Q) are whole numbers, so that the values are logarithms one can do by hand.
LOGITS = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
TARGETS = jnp.array([[1, 0]])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    out = transform(
        lambda x: soft_q.from_logits(
            x, TARGETS, temperature=0.5, with_entropy=True, with_sum=True, with_max=True
        )
    )(LOGITS)
    np.testing.assert_allclose(out.q, np.log([[3.0, 2.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.v, np.log([[4.0, 8.0]]), rtol=1e-6)
    quarter = 0.25 * np.log(4) + 0.75 * np.log(4 / 3)  # both rows are the policy (1/4, 3/4)
    np.testing.assert_allclose(out.entropy, [[quarter, quarter]], rtol=1e-5)
    np.testing.assert_allclose(out.tempered, 0.5 * np.log([[10.0, 40.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.sum_logits, np.log([[3.0, 12.0]]), rtol=1e-6)
    np.testing.assert_allclose(out.max_logit, np.log([[3.0, 6.0]]), rtol=1e-6)


def test_only_what_is_asked_for():
    out = soft_q.from_logits(LOGITS, TARGETS)
    assert (out.entropy, out.tempered, out.sum_logits, out.max_logit) == (None, None, None, None)


def test_agrees_with_optax_in_value_and_gradient():
    logits = jax.random.normal(jax.random.key(0), (3, 5, 7)) * 4
    targets = jax.random.randint(jax.random.key(1), (3, 5), 0, 7)

    def ours(x):
        out = soft_q.from_logits(x, targets)
        return jnp.sum(out.v - out.q)

    def theirs(x):
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(x, targets))

    np.testing.assert_allclose(ours(logits), theirs(logits), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits), jax.grad(theirs)(logits), atol=1e-6)


@pytest.mark.parametrize("name", ["q", "v", "entropy", "tempered", "sum_logits"])
def test_gradients_against_finite_differences(name):
    with jax.enable_x64(True):
        logits = jax.random.normal(jax.random.key(0), (2, 3, 5), jnp.float64)
        targets = jnp.array([[0, 1, 4], [2, 2, 3]])

        def f(x):
            out = soft_q.from_logits(
                jnp.asarray(x), targets, temperature=0.7, with_entropy=True, with_sum=True
            )
            return jnp.sum(getattr(out, name) * jnp.arange(6.0).reshape(2, 3))

        check_grads(f, (logits,), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_no_gradient_through_the_maximum():
    gradient = jax.grad(lambda x: jnp.sum(soft_q.from_logits(x, TARGETS, with_max=True).max_logit))(LOGITS)
    np.testing.assert_array_equal(gradient, 0.0)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]]])
    out = soft_q.from_logits(logits, jnp.array([[1, 0]]), with_entropy=True, temperature=0.7)
    np.testing.assert_allclose(out.v, [[1e4, -1e4 + np.log(3)]], rtol=1e-6)
    np.testing.assert_allclose(out.entropy, [[0.0, np.log(3)]], atol=2e-3)  # float32 carries 1e-3 at 1e4
    assert np.isfinite(out.tempered).all()


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 1, 1024), jnp.bfloat16)
    out = soft_q.from_logits(logits, jnp.zeros((1, 1), jnp.int32))
    assert out.v.dtype == jnp.float32
    np.testing.assert_allclose(out.v, np.log(1024), rtol=1e-6)


def test_hidden_states_with_scale_and_soft_cap():
    hidden = jnp.array([[[1.0, 2.0]]])
    unembedding = jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    logits = soft_q.logits_from_hidden(hidden, unembedding, scale=0.5, soft_cap=3.0)
    np.testing.assert_allclose(logits[0, 0], 3 * np.tanh(np.array([0.5, 1.0, 2.0]) / 3), rtol=1e-6)
    targets = jnp.array([[2]])
    from_hidden = soft_q.from_hidden(hidden, unembedding, targets, scale=0.5, soft_cap=3.0)
    np.testing.assert_array_equal(from_hidden.q, logits[..., 2])


def test_a_token_without_weight_still_gives_its_value_to_the_one_before():
    """Target 2 carries no loss, but target 1 leads to it: its value is read; that of the padding after it is not."""
    model = T5Config(vocab_size=128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8).build(jax.random.key(0))
    tokens = jnp.array([[5, 6, 7, 1, 0]])
    weights = jnp.array([[1.0, 0.0, 1.0, 1.0, 0.0]])
    discounts = jnp.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
    batch = dataclasses.replace(batch_of(tokens, tokens), weights=weights, discounts=discounts)
    everywhere = soft_q.from_logits(model.hidden(batch) @ model.unembedding().kernel, tokens)
    out = soft_q.from_model(model, batch)
    np.testing.assert_allclose(out.v[:, :4], everywhere.v[:, :4], rtol=1e-6)
    np.testing.assert_array_equal(out.v[:, 4:], 0.0)


class Fixed:
    """A model whose logits are given: its hidden states are the logits, and its unembedding is the identity."""

    def __init__(self, logits):
        self.logits = logits

    def hidden(self, batch, dropout_keys=None, token_offsets=None):
        return self.logits

    def unembedding(self):
        return Unembedding(jnp.eye(self.logits.shape[-1], dtype=self.logits.dtype))

    def start_decoding(self, *given):
        raise NotImplementedError

    decode = reorder = start_decoding


# Two turns, `1 0` and `1 0`, with one token between them and one of padding behind. exp(Q) are whole numbers: v is the
# logarithm of 4, 8, 32, 2, 16, 64; q that of 3, 2, 5, 1, 6, 7.
TURN_LOGITS = jnp.log(
    jnp.array([[[1.0, 3.0], [2.0, 6.0], [27.0, 5.0], [1.0, 1.0], [6.0, 10.0], [7.0, 57.0]]])
)
TURN_TOKENS = np.array([1, 0, 1, 1, 0, 0], np.int32)
LN2, LN3, LN7 = np.log([2.0, 3.0, 7.0])


def chat_batch(episodes, gamma, size=5):
    """The conversation in a row that holds its first `size` tokens; all five have one of padding behind them."""
    row = example_row(
        np.array([1], np.int32),
        TURN_TOKENS[:5],
        lengths={"inputs": 1, "targets": 6 if size == 5 else size},
        discount=gamma,
        eos_ids=(0,),
        turns=[[0, 2], [3, 5]],
        episodes=episodes,
    )
    return jax.tree.map(jnp.asarray, stack_rows([row]))


def chat_loss(logits, batch, td_weight=1.0):
    """The sum of the losses of IQLearn with chi-squared: the negative log-likelihood, and the squared reward."""
    out = soft_q.from_model(Fixed(logits), batch)
    losses = iqlearn(out, batch.discounts, td_weight=td_weight * batch.td_weights)
    return jnp.sum(batch.weights * losses)


# The rewards of the tokens of turns, q_t - gamma v_next; None where a token has none.
CHAT_REWARDS = {
    # Each turn is an episode: the second token ends it, r = q = ln 2; ln 3 - gamma ln 8; 0 - gamma ln 16; ln 6.
    ("turns", 1.0, 5): (LN3 - 3 * LN2, LN2, 0.0 - 4 * LN2, LN2 + LN3),
    ("turns", 0.9, 5): (LN3 - 2.7 * LN2, LN2, 0.0 - 3.6 * LN2, LN2 + LN3),
    ("turns", 0.0, 5): (LN3, LN2, 0.0, LN2 + LN3),
    # One episode: behind the second token comes the value of the next turn's first, ln 2, not that of the text, ln 32.
    ("conversation", 1.0, 5): (LN3 - 3 * LN2, LN2 - LN2, 0.0 - 4 * LN2, LN2 + LN3),
    ("conversation", 0.9, 5): (LN3 - 2.7 * LN2, 0.1 * LN2, 0.0 - 3.6 * LN2, LN2 + LN3),
    ("conversation", 0.0, 5): (LN3, LN2, 0.0, LN2 + LN3),
    # The second turn is cut off behind its first token, which has no reward; its value is known.
    ("turns", 0.9, 4): (LN3 - 2.7 * LN2, LN2, None),
    ("conversation", 0.9, 4): (LN3 - 2.7 * LN2, 0.1 * LN2, None),
    # The row ends with the text between: nobody knows what follows the first turn, if the episode goes on.
    ("turns", 0.9, 3): (LN3 - 2.7 * LN2, LN2),
    ("conversation", 0.9, 3): (LN3 - 2.7 * LN2, None),
}
# -log pi of the tokens of turns: 3/4, 2/8, 1/2, 6/16.
CHAT_NLL = (2 * LN2 - LN3, 2 * LN2, LN2, 3 * LN2 - LN3)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize(("episodes", "gamma", "size"), CHAT_REWARDS)
def test_a_conversation_of_two_turns_by_hand(transform, episodes, gamma, size):
    rewards = CHAT_REWARDS[episodes, gamma, size]
    batch = chat_batch(episodes, gamma, size)
    logits = TURN_LOGITS[:, : batch.tokens.shape[1]]
    expected = sum(CHAT_NLL[: len(rewards)]) + sum(r**2 for r in rewards if r is not None)
    np.testing.assert_allclose(transform(chat_loss)(logits, batch), expected, rtol=1e-6)


@pytest.mark.parametrize(("episodes", "gamma", "size"), CHAT_REWARDS)
def test_no_gradient_flows_to_text_between_turns_nor_across_episodes(episodes, gamma, size):
    batch = chat_batch(episodes, gamma, size)
    logits = TURN_LOGITS[:, : batch.tokens.shape[1]]
    gradient = jax.grad(chat_loss)(logits, batch)[0]
    turns = [place for place in (0, 1, 3, 4) if place < size]
    np.testing.assert_array_equal(np.delete(gradient, turns, axis=0), 0.0)
    assert np.all(np.any(gradient[jnp.array(turns)] != 0, axis=-1))

    def second_reward(logits):
        out = soft_q.from_model(Fixed(logits), batch)
        return implied_rewards(out, batch.discounts)[0, 1]

    # What follows the first turn is the second one, where the episode goes on to it.
    goes_on = episodes == "conversation" and gamma > 0 and size > 3
    flows = jnp.any(jax.grad(second_reward)(logits)[0] != 0, axis=-1)
    assert flows.tolist() == [place == 1 or (place == 3 and goes_on) for place in range(logits.shape[1])]


def test_the_rewards_of_a_whole_conversation_telescope():
    """sum_t r_t = v_0 + sum_t log pi_t at gamma 1, over both turns, as for one answer."""
    batch = chat_batch("conversation", 1.0)
    out = soft_q.from_model(Fixed(TURN_LOGITS), batch)
    rewards = jnp.sum(batch.td_weights * implied_rewards(out, batch.discounts))
    np.testing.assert_allclose(rewards, 2 * LN2 - sum(CHAT_NLL), rtol=1e-6)


def test_transparent_places_look_through_to_their_own_segment():
    """Two conversations in one row: each last turn ends its own."""
    row = empty_row({"inputs": 2, "targets": 10})
    settings = {"eos_ids": (0,), "discount": 1.0}
    for segment, start in ((1, 0), (2, 5)):
        put_example(row, np.array([1]), TURN_TOKENS[:5], **settings, place=(segment - 1, start, segment))
        mark_turns(row, [[0, 2], [3, 5]], **settings, episodes="conversation", start=start)
    packed = jax.tree.map(jnp.asarray, stack_rows([row]))
    logits = jnp.concatenate([TURN_LOGITS[:, :5]] * 2, axis=1)
    np.testing.assert_allclose(
        chat_loss(logits, packed), 2 * chat_loss(TURN_LOGITS, chat_batch("conversation", 1.0)), rtol=1e-6
    )


def test_a_conversation_in_blocks_is_the_same():
    batch = chat_batch("conversation", 0.9)
    dense = soft_q.from_model(Fixed(TURN_LOGITS), batch, block_size=0)
    blocked = soft_q.from_model(Fixed(TURN_LOGITS), batch, block_size=2)
    np.testing.assert_allclose(blocked.v, dense.v, rtol=1e-6)
    np.testing.assert_allclose(dense.v[0], LN2 * np.array([2, 3, 1, 1, 4, 0]), rtol=1e-6)


def test_a_later_turn_is_an_answer_to_all_before_it():
    """In one row with the turns before it, or alone behind them as its prompt: the same values, for a decoder-only model."""
    config = DecoderOnlyConfig(
        vocab_size=32, emb_dim=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16
    )
    model = config.build(jax.random.key(0))
    prompt, answer, turns = np.array([5, 6]), np.array([7, 1, 8, 9, 10, 11, 1]), [[0, 2], [4, 7]]
    settings = {"lengths": {"inputs": 6, "targets": 8}, "discount": 0.9, "eos_ids": (1,)}
    whole = example_row(prompt, answer, **settings, turns=turns)
    last = example_row(np.concatenate([prompt, answer[:4]]), answer[4:], **settings)
    out = soft_q.from_model(model, jax.tree.map(jnp.asarray, stack_rows([whole, last])))
    np.testing.assert_allclose(out.q[0, 4:7], out.q[1, :3], rtol=1e-5)
    np.testing.assert_allclose(out.v[0, 4:7], out.v[1, :3], rtol=1e-5)
    np.testing.assert_array_equal(out.v[0, 2:4], 0.0)

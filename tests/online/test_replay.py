"""The buffer: what is replaced, what may be taken, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import sharding
from lmirl_jax.online import replay
from lmirl_jax.online.experience import Experience
from lmirl_jax.types import AnswerBatch, PromptBatch
from tests.training.fakes import mesh_of

ROWS = 16


def draw(value: int) -> Experience:
    """Row r of a draw holds value * 100 + r everywhere."""
    rows = value * 100 + jnp.arange(ROWS)
    tokens = jnp.broadcast_to(rows[:, None], (ROWS, 3))
    lengths = jnp.full((ROWS,), 3)
    answers = AnswerBatch(tokens, lengths, lengths > 0)
    return Experience(PromptBatch(tokens, lengths), answers, tokens.astype(jnp.float32))


def filled(*born: int, draws: int = 3) -> replay.Replay:
    buffer = replay.make_empty(draws, draw(0))
    for step in born:
        buffer = replay.put(buffer, draw(step), jnp.asarray(step))
    return buffer


def test_the_oldest_draw_makes_room():
    buffer = filled(0, 2, 4, 6)
    np.testing.assert_array_equal(buffer.born, [6, 2, 4])
    np.testing.assert_array_equal(buffer.experience.answers.tokens[:, 5, 0], [605, 205, 405])


def test_a_single_draw_is_used_completely_and_in_order():
    taken, ages = replay.sample_rows(filled(3, draws=1), jax.random.key(0), jnp.asarray(5))
    np.testing.assert_array_equal(taken.answers.tokens, draw(3).answers.tokens)
    np.testing.assert_array_equal(ages, np.full(ROWS, 2))


def test_rows_keep_their_place_and_come_from_all_draws_alike():
    buffer = filled(0, 1, 2)
    keys = jax.random.split(jax.random.key(1), 200)
    taken, ages = jax.vmap(lambda key: replay.sample_rows(buffer, key, jnp.asarray(2)))(keys)
    tokens = np.asarray(taken.answers.tokens[..., 0])
    np.testing.assert_array_equal(tokens % 100, np.broadcast_to(np.arange(ROWS), tokens.shape))
    np.testing.assert_array_equal(tokens // 100, 2 - np.asarray(ages))
    np.testing.assert_array_equal(taken.behaviour_log_probs, taken.answers.tokens.astype(np.float32))
    shares = np.bincount((tokens // 100).ravel(), minlength=3) / tokens.size
    np.testing.assert_allclose(shares, 1 / 3, atol=0.03)  # 3,200 rows: a standard deviation is 0.008


@pytest.mark.parametrize(("born", "max_age", "allowed"), [((4,), None, {4}), ((0, 3, 4), 1, {3, 4})])
def test_neither_empty_places_nor_old_draws_are_sampled(born, max_age, allowed):
    taken, _ = replay.sample_rows(filled(*born), jax.random.key(2), jnp.asarray(4), max_age)
    assert {int(x) // 100 for x in taken.answers.tokens[:, 0]} == allowed


def test_on_eight_devices_the_same_rows_are_sampled_and_none_move():
    mesh = mesh_of(8, 2, 2, 2)
    buffer, key, step = filled(0, 1, 2), jax.random.key(3), jnp.asarray(2)
    placed = jax.device_put(buffer, replay.shardings(mesh, buffer))
    take = jax.jit(replay.sample_rows, out_shardings=(sharding.batch_sharding(mesh),) * 2)
    alone, spread = replay.sample_rows(buffer, key, step), take(placed, key, step)
    jax.tree.map(np.testing.assert_array_equal, alone, jax.device_get(spread))
    text = take.lower(placed, key, step).compile().as_text()
    assert "all-to-all" not in text and "collective-permute" not in text
    assert "s32[3,16" not in text and "s32[16,3]" not in text  # Nowhere is the whole buffer, or all rows.

"""Lays each prompt and its answer in one row, one after the other, as a decoder-only model reads them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from lmirl_jax.types import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptedRows:
    """Rows of prompts and answers, and where the answers lie in them.

    Args:
        tokens: the tokens that the model is fed; 0 on padding.
        segment_ids: 1, 2, .. for the examples of a row; 0 on padding. The tokens of an example are neighbours.
        positions: 0, 1, .. from the first token of each prompt.
        is_prompt: whether a token belongs to a prompt.
        answers: the place in the row of each token of `Batch.tokens`; one outside of the row on padding.
    """

    tokens: Int[Array, "*batch places"]
    segment_ids: Int[Array, "*batch places"]
    positions: Int[Array, "*batch places"]
    is_prompt: Bool[Array, "*batch places"]
    answers: Int[Array, "*batch length"]


def lay_out(batch: Batch, start_id: int) -> PromptedRows:
    """Makes rows of as many places as the prompts and the answers of a batch have together.

        place of token t of an answer = the lengths of the examples before it + the length of its prompt + t

    Args:
        batch: the rows, packed or not.
        start_id: stands for an empty prompt.
    """
    arrays = batch.prompt_tokens, batch.prompt_segment_ids, batch.tokens, batch.segment_ids, batch.positions
    return jax.vmap(functools.partial(_lay_out_row, start_id=start_id))(*map(jnp.asarray, arrays))


def _lay_out_row(
    prompt_tokens: Int[Array, " inputs"],
    prompt_segments: Int[Array, " inputs"],
    tokens: Int[Array, " length"],
    segments: Int[Array, " length"],
    positions: Int[Array, " length"],
    *,
    start_id: int,
) -> PromptedRows:
    room, length = prompt_tokens.shape[0], tokens.shape[0]
    size = room + length
    # Segment 0 is padding; a row has at most as many segments as places.
    numbers = jnp.arange(size + 1)
    prompt_counts = jnp.zeros(size + 1, jnp.int32).at[prompt_segments].add(1)
    answer_counts = jnp.zeros(size + 1, jnp.int32).at[segments].add(1)
    there = (numbers > 0) & (prompt_counts + answer_counts > 0)
    prompt_lengths = jnp.where(there, jnp.maximum(prompt_counts, 1), 0)
    lengths = jnp.where(there, prompt_lengths + answer_counts, 0)
    begins = jnp.cumsum(lengths) - lengths

    firsts = jnp.full(size + 1, room).at[prompt_segments].min(jnp.arange(room))
    in_prompt = jnp.arange(room) - firsts[prompt_segments]
    in_answer = prompt_lengths[segments] + positions
    outside = size
    prompts = jnp.where(prompt_segments > 0, begins[prompt_segments] + in_prompt, outside)
    answers = jnp.where(segments > 0, begins[segments] + in_answer, outside)
    starts = jnp.where(there & (prompt_counts == 0), begins, outside)

    def write(of_starts: Array | int, of_prompts: Array | int, of_answers: Array | int) -> Array:
        row = jnp.zeros(size, jnp.int32)
        for places, values in ((starts, of_starts), (prompts, of_prompts), (answers, of_answers)):
            row = row.at[places].set(values, mode="drop")
        return row

    return PromptedRows(
        tokens=write(start_id, prompt_tokens, tokens),
        segment_ids=write(numbers, prompt_segments, segments),
        positions=write(0, in_prompt, in_answer),
        is_prompt=write(1, 1, 0) > 0,
        answers=answers,
    )

"""Makes every `Batch`. Only this module knows the TD mask, the discounts and the rule for truncated answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from lmirl_jax.types import AnswerBatch, Batch, PromptBatch

Positions = Int[Array | np.ndarray, "*rows length"]
Lengths = Int[Array | np.ndarray, "*rows"]
Flags = Bool[Array | np.ndarray, "*rows"]
Masks = Float[Array | np.ndarray, "*rows length"]
# The positions at which the assistant turns of a conversation begin, and before which they end.
Turns = Sequence[Sequence[int]]
# Whether each assistant turn is an episode, or the conversation is one over all of them.
Episodes = Literal["turns", "conversation"]


def length_mask(lengths: Lengths, size: int) -> Bool[np.ndarray | Array, "*rows size"]:
    """Marks the first `lengths` of `size` positions with True; for numpy or JAX arrays."""
    return np.arange(size).reshape((1,) * lengths.ndim + (size,)) < lengths[..., None]


def episode(lengths: Lengths, terminal: Flags, size: int, discount: float) -> tuple[Masks, Masks, Masks]:
    """Marks the tokens of answers that begin at position 0; for numpy or JAX arrays.

        weight_t = 1,  discount_t = gamma (0 at the last token),  td_weight_t = 1 (0 at the last token unless terminal)

    A truncated answer is not terminal: what would have followed its last token is not known, so that this token has no
    reward, while its likelihood still counts.

    Args:
        lengths: tokens of each answer, [*rows].
        terminal: whether an answer ends with an end-of-sequence token, [*rows].
        size: the length of a row.
        discount: gamma, between the tokens of an answer.

    Returns:
        Weights, discounts and TD weights in float32, [*rows, size]; 0 after the end.
    """
    real = length_mask(lengths, size)
    before_last = length_mask(lengths - 1, size)
    has_reward = before_last | (real & terminal[..., None])
    return (
        real.astype(np.float32),
        discount * before_last.astype(np.float32),
        has_reward.astype(np.float32),
    )


def answer_rows(
    prompts: PromptBatch,
    answers: AnswerBatch,
    discount: float,
    rewards: Float[Array, "rows length"] | None = None,
) -> Batch:
    """Makes the batch of an encoder-decoder, one answer in each row with its prompt beside it; for use inside `jit`.

    Args:
        prompts: [rows, inputs], a prompt for each answer.
        answers: [rows, length].
        discount: gamma.
        rewards: the given reward of each token, or None.

    Returns:
        The batch; see `episode` for answers that are truncated.
    """
    size = answers.tokens.shape[-1]
    weights, discounts, td_weights = episode(answers.lengths, answers.terminal, size, discount)
    real = weights.astype(jnp.int32)
    return Batch(
        tokens=answers.tokens,
        segment_ids=real,
        positions=jnp.arange(size, dtype=jnp.int32)[None] * real,
        weights=weights,
        discounts=discounts,
        td_weights=td_weights,
        rewards=rewards,
        prompt_tokens=prompts.tokens,
        prompt_segment_ids=length_mask(prompts.lengths, prompts.tokens.shape[-1]).astype(jnp.int32),
    )


def prompts_of(batch: Batch) -> PromptBatch:
    """The prompts of rows that are not packed, from position 0 on also where the padding comes first."""
    real = batch.prompt_segment_ids > 0
    lengths, size = real.sum(axis=-1), real.shape[-1]
    library = jnp if isinstance(real, jax.Array) else np
    places = (np.arange(size)[None] + library.argmax(real, axis=-1)[:, None]) % max(size, 1)
    tokens = library.take_along_axis(batch.prompt_tokens, places, axis=-1)
    return PromptBatch(library.where(length_mask(lengths, size), tokens, 0), lengths)


def answers_of(batch: Batch) -> AnswerBatch:
    """The answers of rows that are not packed; their weights may be 0."""
    real = batch.segment_ids > 0
    lengths = real.sum(axis=-1)
    return AnswerBatch(
        batch.tokens, lengths, (lengths > 0) & ((batch.td_weights > 0).sum(axis=-1) == lengths)
    )


def concatenate(first: Batch, second: Batch) -> Batch:
    """Joins the rows of two batches, padded to the greater length."""

    def put_together(a: Array, b: Array) -> Array:
        length = max(a.shape[1], b.shape[1])
        return jnp.concatenate([jnp.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in (a, b)])

    return jax.tree.map(put_together, first, second)


def empty_row(lengths: Mapping[str, int], with_rewards: bool = False, with_labels: bool = False) -> Batch:
    """Makes a row of zeros, a numpy `Batch` without its batch axis, into which examples are put.

    Args:
        lengths: tokens of a row, for `inputs` and `targets`.
        with_rewards: whether the data give rewards.
        with_labels: whether the data say which answers are right.
    """
    inputs, targets = lengths["inputs"], lengths["targets"]
    return Batch(
        tokens=np.zeros(targets, np.int32),
        segment_ids=np.zeros(targets, np.int32),
        positions=np.zeros(targets, np.int32),
        weights=np.zeros(targets, np.float32),
        discounts=np.zeros(targets, np.float32),
        td_weights=np.zeros(targets, np.float32),
        rewards=np.zeros(targets, np.float32) if with_rewards else None,
        labels=np.zeros(targets, np.float32) if with_labels else None,
        prompt_tokens=np.zeros(inputs, np.int32),
        prompt_segment_ids=np.zeros(inputs, np.int32),
    )


def put_example(
    row: Batch,
    inputs: Int[np.ndarray, " n"],
    targets: Int[np.ndarray, " m"],
    *,
    eos_ids: Sequence[int],
    discount: float,
    weight: float = 1.0,
    rewards: Float[np.ndarray, " m"] | None = None,
    place: tuple[int, int, int] = (0, 0, 1),
) -> None:
    """Writes an example into a row, trimmed to the row's size.

    Args:
        row: a row from `empty_row`, which is changed in place.
        inputs: tokens of the prompt, with EOS where the task appends one.
        targets: tokens of the answer, with its EOS; one that lacks it, before or after trimming, is truncated.
        eos_ids: the tokens that end an answer.
        discount: gamma, between the tokens of an answer.
        weight: the weight of the example, which each token of its answer gets.
        rewards: the reward of each token of the answer; None for 0.
        place: the positions at which the prompt and the answer begin, and the number of the segment.
    """
    i, t, segment = place
    inputs, targets = inputs[: len(row.prompt_tokens)], targets[: len(row.tokens)]
    row.prompt_tokens[i : i + len(inputs)] = inputs
    row.prompt_segment_ids[i : i + len(inputs)] = segment
    count = len(targets)
    answer = slice(t, t + count)
    terminal = count > 0 and int(targets[-1]) in eos_ids
    weights, discounts, td_weights = (
        array[0] for array in episode(np.array([count]), np.array([terminal]), count, discount)
    )
    row.tokens[answer] = targets
    row.segment_ids[answer] = segment
    row.positions[answer] = np.arange(count)
    row.weights[answer] = weights * np.float32(weight)
    row.discounts[answer] = discounts
    row.td_weights[answer] = td_weights
    if rewards is not None:
        row.rewards[answer] = rewards[:count]


def mark_label(row: Batch, label: bool, segment: int = 1) -> None:
    """Marks the tokens of an answer as right or wrong, in a row with labels; changes nothing in one without.

    Args:
        row: a row into which `put_example` has written the answer; it is changed in place.
        label: whether the answer is right.
        segment: the number of its segment.
    """
    if row.labels is not None:
        row.labels[row.segment_ids == segment] = label


def mark_turns(
    row: Batch,
    turns: Turns,
    *,
    eos_ids: Sequence[int],
    discount: float,
    episodes: Episodes = "turns",
    weight: float = 1.0,
    start: int = 0,
) -> None:
    """Marks the assistant turns of a conversation, which lies in a row as the answer of an example.

    Text between turns has weight 0 and TD weight 0. If each turn is an episode, it ends like any answer, and the discount
    between turns is 0. If the conversation is one episode, the discount is gamma from its first token to the one before its
    last: places of weight 0, TD weight 0 and discount above 0 are transparent, so that the value after the end of a turn is
    that of the first token of the next one (`soft_q.from_model`).

    A turn that the row cuts off is truncated. So is, in one episode, the last turn of a row that ends before the next turn.

    Args:
        row: a row into which `put_example` has written the conversation; it is changed in place.
        turns: the turns in the tokens of the conversation, in order; those that the row does not hold are passed over.
        eos_ids: the tokens that end a turn.
        discount: gamma.
        episodes: what is an episode.
        weight: the weight of each token of a turn.
        start: the position at which the conversation begins in the row.
    """
    count = int((row.segment_ids == row.segment_ids[start]).sum()) if row.segment_ids[start] else 0
    weights, discounts, td_weights = np.zeros((3, count), np.float32)
    held = [(begin, min(end, count)) for begin, end in turns if begin < count]
    if episodes == "conversation" and held:
        discounts[: held[-1][1]] = discount
    for number, (begin, end) in enumerate(held):
        turn = slice(begin, end)
        whole = end == turns[number][1] and int(row.tokens[start + end - 1]) in eos_ids
        # In one episode, what follows the last turn in the row is the next turn, unless there is none.
        if episodes == "conversation":
            whole = whole and (number + 1 < len(held) or number + 1 == len(turns))
        size = end - begin
        real, gammas, has_reward = (
            array[0] for array in episode(np.array([size]), np.array([whole]), size, discount)
        )
        weights[turn], td_weights[turn] = real * np.float32(weight), has_reward
        if episodes == "turns" or number + 1 == len(held):
            discounts[turn] = gammas
    answer = slice(start, start + count)
    row.weights[answer], row.discounts[answer], row.td_weights[answer] = weights, discounts, td_weights


def example_row(
    inputs: Int[np.ndarray, " n"],
    targets: Int[np.ndarray, " m"],
    *,
    lengths: Mapping[str, int],
    with_rewards: bool = False,
    with_labels: bool = False,
    label: bool = True,
    turns: Turns | None = None,
    episodes: Episodes = "turns",
    **example: Any,
) -> Batch:
    """Makes a row, without its batch axis, that holds one example.

    Args:
        inputs, targets: see `put_example`.
        lengths, with_rewards, with_labels: see `empty_row`.
        label: whether the answer is right.
        turns: the assistant turns of a conversation in `targets`; None for one answer.
        episodes: see `mark_turns`.
        example: the other arguments of `put_example`.
    """
    row = empty_row(lengths, with_rewards, with_labels)
    put_example(row, inputs, targets, **example)
    mark_label(row, label)
    if turns is not None:
        settings = {key: example[key] for key in ("eos_ids", "discount", "weight") if key in example}
        mark_turns(row, turns, episodes=episodes, **settings)
    return row


def stack_rows(rows: Sequence[Batch], size: int | None = None) -> Batch:
    """Stacks rows to a batch, with rows of zeros (so of weight 0) up to `size` where it is given."""
    missing = 0 if size is None else size - len(rows)
    empty = jax.tree.map(np.zeros_like, rows[0])
    return jax.tree.map(lambda *arrays: np.stack(arrays), *rows, *[empty] * missing)

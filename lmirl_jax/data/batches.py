"""Tokens of one example become a row, rows become a batch: pure numpy. Batch, in types.py, explains each array."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32

from lmirl_jax.types import Batch


class Row(NamedTuple):
    """One row of a `Batch`, in the order of its fields; segment ids only where several examples share the row."""

    encoder_input_tokens: Int32[np.ndarray, " inputs"]
    decoder_input_tokens: Int32[np.ndarray, " targets"]
    decoder_target_tokens: Int32[np.ndarray, " targets"]
    weights: Float32[np.ndarray, " targets"]
    discounts: Float32[np.ndarray, " targets"]
    td_weights: Float32[np.ndarray, " targets"]
    encoder_segment_ids: Int32[np.ndarray, " inputs"] | None = None
    decoder_segment_ids: Int32[np.ndarray, " targets"] | None = None


def encoder_decoder_row(
    inputs: Int[np.ndarray, " n"],
    targets: Int[np.ndarray, " m"],
    *,
    lengths: Mapping[str, int],
    discount: float,
    eos_id: int,
    weight: float = 1.0,
) -> Row:
    """Trims one example to the lengths, shifts its targets right, and pads with 0.

    Args:
        inputs: tokens of the prompt, with EOS where the task appends one.
        targets: tokens of the answer, with its EOS; one that lacks it, before or after trimming, is truncated.
        lengths: the row's size in tokens, for `inputs` and `targets`.
        discount: gamma, between the tokens of an answer.
        eos_id: the token that ends an answer.
        weight: of the example: all of its target tokens have it.

    Returns:
        The row. A truncated answer is not terminal: its last token keeps its weight and has TD weight 0.
    """
    row = empty_row(lengths)
    put(row, inputs, targets, 0, 0, lengths=lengths, discount=discount, eos_id=eos_id)
    row.weights[:] *= np.float32(weight)
    return row


def stack_rows(rows: Sequence[Row], size: int | None = None) -> Batch:
    """Stacks rows to a batch, with rows of zeros (so of weight 0) up to `size` where it is given."""
    missing = 0 if size is None else size - len(rows)
    columns = []
    for column in zip(*rows, strict=True):
        if column[0] is None:
            columns.append(None)
        else:
            columns.append(np.stack([*column, *[np.zeros_like(column[0])] * missing]))
    return Batch(*columns)


def empty_row(lengths: Mapping[str, int], packed: bool = False) -> Row:
    """A row of zeros, with segment ids if it is to hold several examples."""
    inputs, targets = lengths["inputs"], lengths["targets"]
    return Row(
        np.zeros(inputs, np.int32),
        np.zeros(targets, np.int32),
        np.zeros(targets, np.int32),
        np.zeros(targets, np.float32),
        np.zeros(targets, np.float32),
        np.zeros(targets, np.float32),
        np.zeros(inputs, np.int32) if packed else None,
        np.zeros(targets, np.int32) if packed else None,
    )


def put(
    row: Row,
    inputs: np.ndarray,
    targets: np.ndarray,
    i: int,
    t: int,
    *,
    lengths: Mapping[str, int],
    discount: float,
    eos_id: int,
) -> None:
    """Writes one example into the row, its inputs from position `i` and its targets from `t`."""
    inputs = inputs[: lengths["inputs"]]
    targets = targets[: lengths["targets"]]
    row.encoder_input_tokens[i : i + len(inputs)] = inputs
    if len(targets) == 0:
        return
    last = t + len(targets) - 1
    row.decoder_input_tokens[t + 1 : last + 1] = targets[:-1]
    row.decoder_target_tokens[t : last + 1] = targets
    row.weights[t : last + 1] = 1
    row.discounts[t:last] = discount
    row.td_weights[t : last + 1] = 1
    if targets[-1] != eos_id:
        row.td_weights[last] = 0

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
) -> Row:
    """Trims one example to the lengths, shifts its targets right, and pads with 0.

    Args:
        inputs: tokens of the prompt, with EOS where the task appends one.
        targets: tokens of the answer, with its EOS; one that lacks it, before or after trimming, is truncated.
        lengths: the row's size in tokens, for `inputs` and `targets`.
        discount: gamma, between the tokens of an answer.
        eos_id: the token that ends an answer.

    Returns:
        The row. A truncated answer is not terminal: its last token keeps weight 1 and has TD weight 0.
    """
    row = _empty_row(lengths)
    _put(row, inputs, targets, 0, 0, lengths=lengths, discount=discount, eos_id=eos_id)
    return row


def pack_rows(
    examples: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    lengths: Mapping[str, int],
    discount: float,
    eos_id: int,
) -> Batch:
    """Packs examples into as few rows as first fit finds: each goes to the first with room for both its parts.

    Args:
        examples: pairs of inputs and targets, as `encoder_decoder_row` takes them.
        lengths: as there.
        discount: as there.
        eos_id: as there.

    Returns:
        A batch with segment ids 1, 2, .. in each row, in order of arrival. The discount of 0 at the end of each answer
        severs it from its neighbour; the decoder's input starts anew, from 0, at each segment.
    """
    rows: list[Row] = []
    used: list[list[int]] = []  # Tokens taken in each row: inputs, targets, and the number of segments.
    for inputs, targets in examples:
        need = (min(len(inputs), lengths["inputs"]), min(len(targets), lengths["targets"]))
        fits = (
            index
            for index, (i, t, _) in enumerate(used)
            if i + need[0] <= lengths["inputs"] and t + need[1] <= lengths["targets"]
        )
        index = next(fits, None)
        if index is None:
            index = len(rows)
            rows.append(_empty_row(lengths, packed=True))
            used.append([0, 0, 0])
        i, t, segments = used[index]
        _put(rows[index], inputs, targets, i, t, lengths=lengths, discount=discount, eos_id=eos_id)
        rows[index].encoder_segment_ids[i : i + need[0]] = segments + 1
        rows[index].decoder_segment_ids[t : t + need[1]] = segments + 1
        used[index] = [i + need[0], t + need[1], segments + 1]
    return stack_rows(rows)


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


def _empty_row(lengths: Mapping[str, int], packed: bool = False) -> Row:
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


def _put(
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

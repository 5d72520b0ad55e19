"""Rewards of the steps of an answer, its lines, as rewards of its tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.data.given_rewards import REWARD, REWARDS, STEP_REWARDS, check_number
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.pieces import encode_with_offsets
from lmirl_jax.types import UserError


def with_token_rewards(
    row: Mapping[str, Any], text: str, tokens: Sequence[int], vocabulary: Any, where: str
) -> dict[str, Any]:
    """The row with `rewards` in place of `step_rewards`: that of a step is paid at its last token, and others are 0.

    Args:
        row: the row, with `step_rewards`, a number for each line of the answer that is not empty.
        text: the answer.
        tokens: its tokens, EOS included.
        vocabulary: its vocabulary.
        where: the name of the row in errors.

    Raises:
        UserError: other rewards beside these, values that are no finite numbers, or not as many as lines.
    """
    numbers, rest = row[STEP_REWARDS], {key: value for key, value in row.items() if key != STEP_REWARDS}
    other = next((key for key in (REWARD, REWARDS) if key in row), None)
    if other is not None:
        raise UserError(f"{where}: both {STEP_REWARDS!r} and {other!r}; keep one of them")
    if not isinstance(numbers, list):
        raise UserError(
            f"{where}: {STEP_REWARDS} is {type(numbers).__name__}, not a list; write a list with one number for each line of the "
            "answer"
        )
    for position, number in enumerate(numbers, start=1):
        check_number(number, f"{where}: number {position} of {STEP_REWARDS}")
    ends = line_ends(text)
    if len(numbers) != len(ends):
        raise UserError(
            f"{where}: {STEP_REWARDS} has {len(numbers)} numbers and the answer has {len(ends)} lines; write one number for each"
        )
    rewards = [0.0] * len(tokens)
    _, offsets = encode_with_offsets(vocabulary, text)
    for number, end in zip(numbers, ends, strict=True):
        rewards[_token_before(offsets, end)] += float(number)
    return rest | {REWARDS: rewards}


def line_ends(text: str) -> list[int]:
    """For each line that is not empty, the number of the character before which it ends."""
    ends, begin = [], 0
    for line in text.split("\n"):
        if line.strip():
            ends.append(begin + len(line.rstrip()))
        begin += len(line) + 1
    return ends


def _token_before(offsets: Offsets, end: int) -> int:
    """The number of the token that holds the last character before `end`, or of the last one that begins before it."""
    return max((number for number, (begin, _) in enumerate(offsets) if begin < end), default=0)

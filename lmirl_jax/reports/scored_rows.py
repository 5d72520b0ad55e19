"""Scored answers as rows of heat maps."""

import math
from collections.abc import Sequence

from lmirl_jax.reports.heatmap import Row
from lmirl_jax.rewards.scored import Scored

EOS = "EOS"
MOST_TOKENS = 300  # Of an answer in a heat map.
LONGEST_TEXT = 600  # Letters of a prompt.
BEFORE = 40  # Tokens shown before what is marked, where a long answer is cut.


def scored_row(
    scored: Scored,
    label: str,
    *,
    note: str = "",
    marked: tuple[int, int] | None = None,
    most: int = MOST_TOKENS,
) -> Row:
    """The tokens of an answer with their rewards, in which every token has a text.

    Bytes of one character are merged into it, and so is any other token without text of its own into the next that has some;
    their rewards add up. The end of the sequence is shown as EOS. A long answer is cut, with an ellipsis.

    Args:
        scored: the answer.
        label: above the row.
        note: at the right above it.
        marked: characters of the answer (from, to) whose tokens are framed; of an empty span the token that follows.
        most: how many tokens are shown.
    """
    merged = _merged(scored)
    frames = {i for i, (_, _, span) in enumerate(merged) if marked is not None and _overlaps(span, marked)}
    start = max(0, min(min(frames, default=0) - BEFORE, len(merged) - most))
    texts, rewards = [text for text, _, _ in merged], [reward for _, reward, _ in merged]
    window = slice(start, start + most)
    before, after = start > 0, start + most < len(merged)
    return Row(
        label,
        ["…"] * before + texts[window] + ["…"] * after,
        [None] * before + rewards[window] + [None] * after,
        note,
        frozenset(i - start + before for i in frames if start <= i < start + most),
    )


def note_of(answer: Scored) -> str:
    """An answer's return and metrics, in a line."""
    values = [
        f"return {signed(answer.total)}",
        *(f"{name} {_number(value)}" for name, value in answer.metrics.items()),
    ]
    return " · ".join([*values, *["truncated"] * answer.truncated])


def shortened(text: str, most: int = LONGEST_TEXT) -> str:
    """A prompt or reference as it stands above a heat map, cut where it is long."""
    return text if len(text) <= most else text[: most - 1] + "…"


def signed(value: float) -> str:
    """With its sign and two places; a rounded -0 is 0."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _merged(scored: Scored) -> list[tuple[str, float | None, tuple[int, int]]]:
    """Of each token that is shown its text, its reward, and its characters of the answer."""
    result = []
    waiting: list[float | None] = []
    last = len(scored.pieces) - 1
    for i, (piece, reward, span) in enumerate(zip(scored.pieces, scored.reward, scored.offsets, strict=True)):
        end = i == last and not scored.truncated and not piece
        if end and waiting:  # Bytes that never became a character.
            result.append(("�", _sum(waiting), span))
            waiting = []
        waiting.append(reward)
        if piece or end:
            result.append((piece or EOS, _sum(waiting), span))
            waiting = []
    if waiting:
        result.append(("�", _sum(waiting), scored.offsets[-1]))
    return result


def _sum(rewards: Sequence[float | None]) -> float | None:
    known = [reward for reward in rewards if reward is not None]
    return math.fsum(known) if len(known) == len(rewards) else None


def _overlaps(span: tuple[int, int], marked: tuple[int, int]) -> bool:
    if marked[0] == marked[1]:
        return span[0] <= marked[0] < span[1] or (span[0] == span[1] == marked[0])
    return span[0] < marked[1] and marked[0] < span[1]

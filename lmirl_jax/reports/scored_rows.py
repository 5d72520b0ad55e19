"""Makes rows of heat maps from scored answers."""

import math
from collections.abc import Sequence

from lmirl_jax.reports.heatmap import Row
from lmirl_jax.rewards.scored import ScoredAnswer

EOS = "EOS"
# The most tokens of an answer in a heat map.
MOST_TOKENS = 300
# The most characters of a prompt.
LONGEST_TEXT = 600
# The number of tokens before the first marked one that are shown of a long answer.
BEFORE = 40


def scored_row(
    scored: ScoredAnswer,
    label: str,
    *,
    note: str = "",
    marked: tuple[int, int] | None = None,
    most: int = MOST_TOKENS,
) -> Row:
    """The tokens of an answer with their rewards, in which every token has a text.

    The bytes of one character are merged into one token; any other token without text is merged into the next token that has
    text. Their rewards add up. The text of the last token is EOS. A long answer is cut, with an ellipsis.

    Args:
        scored: the answer.
        label: the text above the row.
        note: the text above the row at the right.
        marked: the range of characters (from, to) whose tokens are framed; for an empty range the token that follows.
        most: the most tokens in the row.
    """
    tokens = _merge_tokens(scored)
    frames = {i for i, (_, _, span) in enumerate(tokens) if marked is not None and _overlaps(span, marked)}
    start = max(0, min(min(frames, default=0) - BEFORE, len(tokens) - most))
    texts, rewards = [text for text, _, _ in tokens], [reward for _, reward, _ in tokens]
    window = slice(start, start + most)
    before, after = start > 0, start + most < len(tokens)
    return Row(
        label,
        ["…"] * before + texts[window] + ["…"] * after,
        [None] * before + rewards[window] + [None] * after,
        note,
        frozenset(i - start + before for i in frames if start <= i < start + most),
    )


def note_of(answer: ScoredAnswer) -> str:
    """The return and the metrics of an answer, in one line."""
    values = [
        f"return {with_sign(answer.total)}",
        *(f"{name} {_number(value)}" for name, value in answer.metrics.items()),
    ]
    return " · ".join([*values, *["truncated"] * answer.truncated])


def shorten(text: str, most: int = LONGEST_TEXT) -> str:
    """Shortens a long prompt or reference for the line above a heat map."""
    return text if len(text) <= most else text[: most - 1] + "…"


def with_sign(value: float) -> str:
    """A number with its sign and two decimals; a number that rounds to 0 has a plus."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _merge_tokens(scored: ScoredAnswer) -> list[tuple[str, float | None, tuple[int, int]]]:
    """The text, the reward and the range of characters of each token of the heat map."""
    result = []
    waiting: list[float | None] = []
    last = len(scored.pieces) - 1
    for i, (piece, reward, span) in enumerate(zip(scored.pieces, scored.reward, scored.offsets, strict=True)):
        end = i == last and not scored.truncated and not piece
        # These are bytes before EOS that form no character.
        if end and waiting:
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
    defined = [reward for reward in rewards if reward is not None]
    return math.fsum(defined) if len(defined) == len(rewards) else None


def _overlaps(span: tuple[int, int], marked: tuple[int, int]) -> bool:
    if marked[0] == marked[1]:
        return span[0] <= marked[0] < span[1] or (span[0] == span[1] == marked[0])
    return span[0] < marked[1] and marked[0] < span[1]

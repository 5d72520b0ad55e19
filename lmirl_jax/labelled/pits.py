"""Pits: the steps at which wrong answers went wrong, as scores of their steps say."""

from collections.abc import Sequence

from lmirl_jax.data.steps import split_steps
from lmirl_jax.types import UserError


def first_pit(scores: Sequence[float]) -> int:
    """The number of the step with the lowest score; of several, the first."""
    return min(range(len(scores)), key=scores.__getitem__)


def prefix_with_pit(text: str, scores: Sequence[float]) -> str:
    """The beginning of an answer up to the end of its pit.

    Args:
        text: the answer.
        scores: a score for each of its steps; see `data.steps.split_steps`.

    Raises:
        UserError: not as many scores as steps.
    """
    steps = split_steps(text)
    if len(steps) != len(scores) or not steps:
        raise UserError(
            f"the answer {text!r} has {len(steps)} steps and {len(scores)} scores of steps; give one for each"
        )
    return text[: steps[first_pit(scores)][1]]

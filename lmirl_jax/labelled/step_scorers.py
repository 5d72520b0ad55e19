"""What scores the steps of an answer: a function of the prompt and the answer, or the name of numbers of its tokens."""

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import takes
from lmirl_jax.data.steps import split_steps
from lmirl_jax.types import UserError

ScoresSteps = Annotated[
    Callable[..., Any],
    Words(
        "a function (prompt, answer) that gives a number for each step, and may take `references` and `messages`",
        takes(2),
    ),
]
# Names of scores in a file that `lmirl score` wrote; see `rewards.step_scores`.
StepScore = Literal["reward", "log_prob", "log_ratio", "value"]


def check_made(scorer: Any, name: str) -> None:
    """Raises a UserError for a class in place of what it makes."""
    if inspect.isclass(scorer):
        words = scorer.__name__
        raise UserError(f"{name}={words} has to be made: write it with brackets, @rewards.{words}()")


def score_steps(
    scorer: Callable[..., Any],
    name: str,
    prompt: str,
    answer: str,
    references: Sequence[str],
    messages: Sequence[Mapping[str, Any]] | None,
) -> list[float]:
    """Calls a function that scores steps, with the references and the conversation where it names them.

    Args:
        scorer: the function.
        name: the setting that gave it, for errors.
        prompt: the prompt.
        answer: the answer.
        references: what the data set answers, if anything.
        messages: the prompt as a conversation; None where it is a text.

    Returns:
        A finite number for each step that `data.steps.split_steps` finds.

    Raises:
        UserError: the function gave something else.
    """
    offered = {"references": references, "messages": messages}
    named = _named_arguments(scorer)
    given = scorer(prompt, answer, **{key: value for key, value in offered.items() if key in named})
    steps = len(split_steps(answer))
    try:
        scores = [float(score) for score in given]
    except (TypeError, ValueError):
        scores = []
    if len(scores) != steps or not all(map(math.isfinite, scores)):
        raise UserError(
            f"{name} gave {given!r} for the answer {answer!r}, which has {steps} steps: return a finite number for each"
        )
    return scores


def _named_arguments(function: Callable[..., Any]) -> Collection[str]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # Some functions in C do not say.
        return ()

"""Checks references and predictions as users give them, and says in one line what is wrong."""

from collections.abc import Sequence
from typing import Any

from lmirl_jax.types import UserError

Targets = Sequence[str | Sequence[str]]


def reference_lists(
    metric: str, targets: Sequence[Any], predictions: Sequence[Any], *, several: bool = False
) -> list[list[str]]:
    """A list of references for each prompt.

    Args:
        metric: the name of the metric in errors.
        targets: a reference, or several, for each prompt.
        predictions: a text for each prompt.
        several: whether a prompt may have a list of samples instead.

    Raises:
        UserError: no prompts, lists of different lengths, a prompt without samples or without a reference that is not empty,
            or an item that is not a text.
    """
    check_lengths(metric, targets, predictions)
    references = [[target] if isinstance(target, str) else list(target) for target in targets]
    samples = sample_lists(predictions) if several else [[text] for text in predictions]
    for i, (texts, prompt_references) in enumerate(zip(samples, references)):
        wrong = [text for text in (*texts, *prompt_references) if not isinstance(text, str)]
        if wrong:
            raise UserError(
                f"{metric}: prompt {i} has a {type(wrong[0]).__name__} among its texts; give strings"
            )
        if not texts:
            raise UserError(f"{metric}: prompt {i} has no samples; draw at least one")
        if not any(text.strip() for text in prompt_references):
            raise UserError(
                f"{metric}: prompt {i} has no reference, or empty ones only; give it one or leave it out"
            )
    return references


def check_lengths(metric: str, targets: Sequence[Any], predictions: Sequence[Any]) -> None:
    for name, items in (("targets", targets), ("predictions", predictions)):
        if isinstance(items, (str, bytes)):
            raise UserError(f"{metric}: {name} is one text; give a list with one for each prompt")
    if len(targets) != len(predictions):
        raise UserError(
            f"{metric}: {len(predictions)} predictions for {len(targets)} targets; give one for each"
        )
    if len(targets) == 0:
        raise UserError(f"{metric}: there are no predictions; give one for at least one prompt")


def sample_lists(predictions: Sequence[Any]) -> list[list[Any]]:
    """The samples of each prompt; a prediction that is one text counts as one sample."""
    return [list(texts) if isinstance(texts, (list, tuple)) else [texts] for texts in predictions]

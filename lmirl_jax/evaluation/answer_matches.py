"""Whether an answer gives the number, or names the choice, that its reference does."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from lmirl_jax.evaluation.final_numbers import final_number
from lmirl_jax.evaluation.references import Targets, reference_lists
from lmirl_jax.types import UserError

# A letter that stands alone, maybe in brackets or bold: B, (B), B., B), **B**.
_LETTER = r"\**\(?\s*([A-Z])\s*\)?\**(?![\w'])"
_SAID = re.compile(rf"(?i:answer|choice|option)(?i:\s+is)?\s*:?\s*(?i:option\s+)?\**\s*{_LETTER}")
_FIRST = re.compile(rf"\s*{_LETTER}\s*(?:[.:)]|$|\n)")
_BRACKETED = re.compile(r"\(([A-Z])\)")


def number(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """The fraction, 0 to 1, of predictions whose final number is that of their reference, or of one of several.

    Args:
        targets: for each prompt a reference or several, each with a number.
        predictions: one text for each prompt.

    Returns:
        `{"number": ...}`. Texts are read leniently: the number after `####`, else in the last box, else the last one; see
        `final_number`.

    Raises:
        UserError: no prompts, lists of different lengths, or a reference without a number.
    """
    return {"number": _share("number", lambda text: final_number(text, lenient=True), targets, predictions)}


def multiple_choice(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """The fraction, 0 to 1, of predictions that choose the letter that their reference does; see `chosen_letter`.

    Args:
        targets: for each prompt a reference or several, each with a letter: `B`, `(B)` or `B. both of them`.
        predictions: one text for each prompt.

    Returns:
        `{"multiple_choice": ...}`.

    Raises:
        UserError: no prompts, lists of different lengths, or a reference that chooses no letter.
    """
    return {"multiple_choice": _share("multiple choice", chosen_letter, targets, predictions)}


def chosen_letter(answer: str) -> str | None:
    """The capital letter that an answer to a question with choices gives.

    It is the last one said to be the answer (`the answer is (B)`, `Answer: B`), else the one that the text begins with (`B`,
    `B. both of them`), else the last one in brackets.

    Returns:
        The letter, or None where there is none.
    """
    said = _SAID.findall(answer)
    if said:
        return said[-1]
    first = _FIRST.match(answer)
    if first:
        return first[1]
    bracketed = _BRACKETED.findall(answer)
    return bracketed[-1] if bracketed else None


def _share(metric: str, read: Callable[[str], Any], targets: Targets, predictions: Sequence[str]) -> float:
    right = 0
    for i, (texts, prediction) in enumerate(zip(reference_lists(metric, targets, predictions), predictions)):
        wanted = [read(text) for text in texts]
        if None in wanted:
            raise UserError(
                f"{metric}: the reference of prompt {i} has none, {texts[wanted.index(None)]!r}: leave that prompt out, or "
                "choose another metric"
            )
        right += read(prediction) in wanted
    return right / len(predictions)

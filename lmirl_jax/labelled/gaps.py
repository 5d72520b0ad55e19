"""Answers with missing parts: what an inverse model learns from, is asked with, and what becomes of the parts that it writes.

An inverse model reads a prompt and an answer with gaps, and writes what is missing:

    reads     7*3+8         writes    7*3___21+8
              ___=21
              ___=29

Source: the inverse dynamics model of https://arxiv.org/abs/2210.06518, whose states are here the given parts of an answer.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import check_arguments, takes
from lmirl_jax.data.gaps import GAP, fill, missing_parts
from lmirl_jax.evaluation.named_metrics import import_function
from lmirl_jax.labelled.answer_sets import AnswerSet
from lmirl_jax.labelled.checkers import CheckerName, make_checker
from lmirl_jax.types import UserError


def _names_view(view: Any) -> bool:
    return "." in view if isinstance(view, str) else takes(1)(view)


View = Annotated[
    str | Callable[..., Any],
    Words(
        f"'module.function', or a function, of an answer that gives it with {GAP} for each missing part",
        _names_view,
    ),
]


@check_arguments
class Gaps:
    """The rows that an inverse model learns from, or the prompts that it is asked with.

    Args:
        view: a function of an answer that gives it with gaps: the rows teach what was in them. None: the answers have gaps,
            and the rows ask for what is missing; `targets` is then the answer with its gaps, for `Fills`.
    """

    macros = ("VIEW",)

    def __init__(self, view: View | None = None):
        self.view = import_function(view, "VIEW", "an answer") if isinstance(view, str) else view

    def rows(self, answers: AnswerSet, number: int) -> list[dict[str, Any]]:
        """The rows of one prompt.

        Args:
            answers: the prompt and its answers.
            number: its number in the file.
        """
        _check_text(answers)
        return [
            self._row(answers, text) | {"id": f"{number}-{place}"}
            for place, text in enumerate(answers.answers)
        ]

    def settings(self) -> dict[str, Any]:
        """What determines the rows beside the macros."""
        return {"gap": GAP}

    def _row(self, answers: AnswerSet, text: str) -> dict[str, Any]:
        if self.view is None:
            if GAP not in text:
                raise UserError(
                    f"{answers.where}: the answer {text!r} has no {GAP}, so nothing is missing: set VIEW to a function that "
                    "gives the answer with gaps, or write them"
                )
            return {"inputs": f"{answers.inputs}\n{text}", "targets": text}
        gapped = self.view(text)
        parts = missing_parts(text, gapped) if isinstance(gapped, str) and GAP in gapped else None
        if parts is None:
            raise UserError(
                f"{answers.where}: VIEW gave {gapped!r} for {text!r}: return the same text with {GAP} for each missing part"
            )
        if GAP in text:
            raise UserError(
                f"{answers.where}: the answer {text!r} has {GAP} in it, which stands for a missing part"
            )
        return {"inputs": f"{answers.inputs}\n{gapped}", "targets": parts}


@check_arguments
class Fills:
    """Completes answers with what an inverse model wrote in their gaps.

    Of several fills, the most likely one that the checker accepts is taken; a prompt without one has no row.

    Args:
        checker: the consistency filter, which accepts a complete answer with a score of `threshold` or more; see
            `make_checker`. None accepts every one.
        threshold: the score from which on an answer is accepted.
        confidence: the `weight` of a row in the loss: 'answer' is the probability of all parts under the inverse model,
            'token' the geometric mean of their tokens' probabilities, and None leaves weights out.
    """

    macros = ("CHECKER",)

    def __init__(
        self,
        checker: CheckerName | None = None,
        threshold: float = 0.5,
        confidence: Literal["answer", "token"] | None = "answer",
    ):
        self.threshold, self.confidence = threshold, confidence
        self.check = None if checker is None else make_checker(checker)

    def rows(self, answers: AnswerSet, number: int) -> list[dict[str, Any]]:
        """The row of one prompt, if any fill is accepted.

        Args:
            answers: the prompt with the answer that has gaps, as `Gaps` wrote them, and the parts that were written.
            number: its number in the file.
        """
        _check_text(answers)
        gapped = answers.references[0] if answers.references else ""
        inputs = answers.inputs.removesuffix(f"\n{gapped}")
        if GAP not in gapped or inputs == answers.inputs:
            raise UserError(
                f"{answers.where}: no answer with gaps: name what lmirl infer wrote for a file of gin/runs/gaps.gin without VIEW"
            )
        log_probs = _log_probs(answers)
        places = range(len(answers.answers))
        if log_probs is not None:
            places = sorted(places, key=lambda place: math.fsum(log_probs[place]), reverse=True)
        for place in places:
            text = fill(gapped, answers.answers[place])
            if text is not None and self._accepts(answers, inputs, text):
                weight = self._weight(None if log_probs is None else log_probs[place], answers.where)
                return [{"inputs": inputs, "targets": text, **weight, "id": str(number)}]
        return []

    def settings(self) -> dict[str, Any]:
        """What determines the rows beside the macros."""
        return {"gap": GAP, "threshold": self.threshold, "confidence": self.confidence}

    def _accepts(self, answers: AnswerSet, inputs: str, text: str) -> bool:
        if self.check is None:
            return True
        try:
            return self.check(inputs, text, ()) >= self.threshold
        except UserError as error:
            raise UserError(f"{answers.where}: {error}") from None

    def _weight(self, log_probs: Sequence[float] | None, where: str) -> dict[str, float]:
        if self.confidence is None:
            return {}
        if log_probs is None:
            raise UserError(
                f"{where}: no token_log_probs, as lmirl infer writes them: set CONFIDENCE=None to leave weights out"
            )
        total = math.fsum(log_probs)
        mean = total if self.confidence == "answer" else total / max(len(log_probs), 1)
        return {"weight": round(min(math.exp(mean), 1.0), 6)}


def _log_probs(answers: AnswerSet) -> list[list[float]] | None:
    """log pi of each token of each answer, in nats; None where the file has none."""
    given, count = answers.token_log_probs, len(answers.answers)
    if given is None:
        return None
    try:
        log_probs = [[float(log_prob) for log_prob in tokens] for tokens in given]
    except (TypeError, ValueError):
        log_probs = []
    if len(log_probs) != count or not all(number <= 0 for tokens in log_probs for number in tokens):
        raise UserError(
            f"{answers.where}: token_log_probs is no list of log-probabilities for each of {count} answers, as lmirl infer "
            "writes them"
        )
    return log_probs


def _check_text(answers: AnswerSet) -> None:
    if answers.messages is not None:
        raise UserError(
            f"{answers.where}: gaps are of prompts that are texts: write inputs in place of messages"
        )

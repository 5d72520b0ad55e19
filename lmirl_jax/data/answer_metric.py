"""A metric of the user's own: a plain function of one answer."""

import dataclasses
import math
import statistics
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class AnswerMetric:
    """The mean over answers of a function of prompt, answer and reference.

    Args:
        name: the name of the metric.
        function: `(prompt, answer, reference) -> number`, of texts. With several references, the largest number counts.
    """

    name: str
    function: Callable[[str, str, str], Any]

    def __call__(
        self, prompts: Sequence[str], targets: Sequence[str | Sequence[str]], predictions: Sequence[str]
    ) -> dict[str, float]:
        """The mean over prompts.

        Raises:
            UserError: the function fails, or returns no finite number.
        """
        values = [
            max(
                self._value(prompt, answer, text)
                for text in ([target] if isinstance(target, str) else target)
            )
            for prompt, target, answer in zip(prompts, targets, predictions, strict=True)
        ]
        return {self.name: statistics.fmean(values)} if values else {}

    def _value(self, prompt: str, answer: str, reference: str) -> float:
        about = f"for the answer {answer!r} to {prompt!r}"
        try:
            value = self.function(prompt, answer, reference)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise UserError(
                f"the metric {self.name} raised {what} ({frame.filename}, line {frame.lineno}) {about}: give a number for "
                "every text"
            ) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"the metric {self.name} gave {value!r} {about}: return a finite number")
        return number

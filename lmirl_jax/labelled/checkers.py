"""Checkers of answers: metrics by name, and functions of a prompt, an answer and a reference."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from lmirl_jax.argument_rules import Words
from lmirl_jax.data.answer_metric import AnswerMetric
from lmirl_jax.evaluation import metric_functions
from lmirl_jax.evaluation.named_metrics import METRICS, import_function
from lmirl_jax.types import UserError


def _names_checker(checker: Any) -> bool:
    return callable(checker) or checker in METRICS or "." in checker


CheckerName = Annotated[
    str | Callable[..., Any],
    Words(
        f"one of {', '.join(METRICS)}, or 'module.function', or a function, without brackets", _names_checker
    ),
]
Checker = Callable[[str, str, Sequence[str]], float]


def make_checker(checker: str | Callable[..., Any]) -> Checker:
    """A function of a prompt, an answer and its references that gives a number.

    Args:
        checker: the name of a metric, such as 'number' or 'exact_match'; 'module.function'; or a function of
            `(prompt, answer)` or `(prompt, answer, reference)`.

    Raises:
        UserError: there is no such metric or function.
    """
    try:
        function = import_function(checker) if isinstance(checker, str) and "." in checker else checker
        if callable(function) and _takes_two(function):
            name = getattr(function, "__name__", repr(function))
            of_two = function
            return _of_metric(
                AnswerMetric(name, lambda prompt, answer, reference: of_two(prompt, answer)), False
            )
        (function,) = metric_functions([function]) or ()
    except UserError as error:
        raise UserError(str(error).replace("METRICS", "CHECKER")) from None
    return _of_metric(function, True)


def _of_metric(function: Callable[..., Any], needs_reference: bool) -> Checker:
    # Some metrics are functions whose options are set.
    named = getattr(function, "func", function)
    name = named.name if isinstance(named, AnswerMetric) else getattr(named, "__name__", repr(named))

    def check(prompt: str, answer: str, references: Sequence[str]) -> float:
        if needs_reference and not references:
            raise UserError(
                f"CHECKER={name} compares with a reference, and there is none: write `targets` beside samples"
            )
        target = list(references) if len(references) > 1 else "".join(references)
        prompts = ([prompt],) if isinstance(function, AnswerMetric) else ()
        values = function(*prompts, [target], [answer])
        if len(values) != 1:
            raise UserError(
                f"CHECKER={name} gives {len(values)} numbers ({', '.join(values)}): name a function of yours that gives one"
            )
        return float(next(iter(values.values())))

    return check


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function takes a prompt and an answer, and no reference."""
    try:
        inspect.signature(function).bind("", "", "")
    except TypeError:
        return True
    except ValueError:
        return False
    return False

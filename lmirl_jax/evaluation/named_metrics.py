"""The metrics of a task of the user's own files, by name."""

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Text, check_arguments
from lmirl_jax.data.answer_metric import AnswerMetric
from lmirl_jax.data.file_task import exact_match
from lmirl_jax.evaluation.answer_matches import multiple_choice, number
from lmirl_jax.evaluation.corpus_metrics import bleu, chrf, sacrebleu_bleu, t5_bleu
from lmirl_jax.evaluation.rouge_tokenizers import ROUGE_TOKENIZERS
from lmirl_jax.evaluation.text_metrics import rouge, sentence_bleu, t5_rouge
from lmirl_jax.types import UserError

METRICS: Mapping[str, Callable[..., dict[str, float]]] = {
    "exact_match": exact_match,
    "rouge": rouge,
    "t5_rouge": t5_rouge,
    "bleu": bleu,
    "t5_bleu": t5_bleu,
    "sentence_bleu": sentence_bleu,
    "chrf": chrf,
    "number": number,
    "multiple_choice": multiple_choice,
}

MetricNames = Annotated[
    Sequence[str | Callable[..., Any]],
    Words(f"a list of one or more of {', '.join(METRICS)}, or of functions, 'module.function'", bool),
]


@check_arguments
def metric_functions(
    metrics: MetricNames | None = None, bleu_tokenizer: Text = "13a", rouge_tokenizer: Text = "auto"
) -> tuple[Callable[..., Any], ...] | None:
    """The functions of metrics by name.

    Args:
        metrics: names of `METRICS`; and `module.function`, or a function, of `(prompt, answer, reference)` that returns a
            number: its metric has its name and is the mean over answers. None for the task's own.
        bleu_tokenizer: the tokenizer of `bleu` and `sentence_bleu`, a name of sacrebleu's: 'zh', 'ja-mecab' or 'char' for
            languages that are written without spaces.
        rouge_tokenizer: that of `rouge`: 'auto', 'ascii' or 'unicode'.

    Returns:
        The functions, for `data.get_task`.

    Raises:
        UserError: an unknown name or tokenizer, a metric twice, or a function that cannot be found or called so.
    """
    sacrebleu_bleu("BLEU_TOKENIZER", bleu_tokenizer)
    if rouge_tokenizer not in ROUGE_TOKENIZERS:
        raise UserError(
            f"ROUGE_TOKENIZER={rouge_tokenizer!r}: there is none; choose one of {', '.join(ROUGE_TOKENIZERS)}"
        )
    if metrics is None:
        return None
    options = {
        "bleu": {"tokenize": bleu_tokenizer},
        "sentence_bleu": {"tokenize": bleu_tokenizer},
        "rouge": {"tokenize": rouge_tokenizer},
    }
    found: dict[str, Callable[..., Any]] = {}
    for metric in metrics:
        name, function = _find(metric)
        if name in found:
            raise UserError(f"METRICS has {name!r} twice: leave one out")
        found[name] = functools.partial(function, **options[name]) if name in options else function
    return tuple(found.values())


def _find(metric: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    if isinstance(metric, str) and "." not in metric:
        if metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, n=1)
            hint = f"write {near[0]!r}" if near else f"choose of {', '.join(METRICS)}"
            raise UserError(
                f"METRICS: there is no {metric!r}; {hint}, or name a function of yours, 'module.function'"
            )
        return metric, METRICS[metric]
    function = import_function(metric) if isinstance(metric, str) else metric
    name = getattr(function, "__name__", type(function).__name__)
    try:
        inspect.signature(function).bind("", "", "")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"METRICS: {metric} cannot be called with a prompt, an answer and a reference ({error}): give it these three "
            "arguments"
        ) from None
    return name, AnswerMetric(name, function)


def import_function(
    path: str, setting: str = "METRICS", arguments: str = "(prompt, answer, reference)"
) -> Callable[..., Any]:
    """The function that 'module.function' names.

    Args:
        path: the name.
        setting: the setting that gave it, for errors.
        arguments: what the function takes, for errors.

    Raises:
        UserError: there is no such module, or no such function in it.
    """
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise UserError(
            f"{setting}: there is no module {error.name!r} for {path!r}: put its file into this folder, or one of PYTHONPATH"
        ) from None
    except AttributeError:
        raise UserError(f"{setting}: module {module!r} has no {name!r}") from None
    if not callable(function):
        raise UserError(f"{setting}: {path} is no function: name one of {arguments}")
    return function

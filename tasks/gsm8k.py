"""`gsm8k`: grade-school word problems with worked answers (Cobbe et al., arXiv 2110.14168), from TFDS `gsm8k:1.0.0`.

It has 7,473 training problems and 1,319 test problems and no validation split: here `validation` and `test` are both
TFDS's test, so report numbers on it with that in mind.

The prompt is the question alone; the paper states none, so that this is our choice. A chat model gets the question as the
message of a user.

The answers are full of calculator annotations, `<<48/2=24>>`, and newlines, and T5's vocabulary has neither `<` nor newline.
The task writes `[48/2=24]` and ` ; ` instead and undoes both before metrics. Other brackets of an answer stay unchanged:
they never look like a calculation without spaces. With the byte vocabulary each of the 8,792 answers comes back whole, with
T5's all but 140: it has no multiplication, division or minus sign beyond ASCII, no `<`, `{`, `}` or `^`, and runs spaces
together. No number after `####` is lost.

Metrics are fractions from 0 to 1: `accuracy`, `accuracy_with_calculator`, and of N samples a prompt `pass_at_N` and `maj_at_N`.
They ask for `####` before the final number, as lm-evaluation-harness's `strict-match` does. `gsm8k_lenient` is the same task
with the reading of its `flexible-extract`: a number in a box, or the last one, will do.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.seqio_import import register_with_seqio
from lmirl_jax.evaluation import final_number
from lmirl_jax.tasks.gsm8k_calculator import with_calculator

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "gsm8k": (
        ("train", "validation", "test"),
        "TFDS gsm8k:1.0.0",
        "grade-school word problems with worked answers; a number counts after ####",
    ),
    "gsm8k_lenient": (("train", "validation", "test"), "TFDS gsm8k:1.0.0", "the same; any number may count"),
}

_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_BRACKETS = re.compile(r"\[([-+*/().0-9]*=[-+*/().0-9]*)\]")
# T5's vocabulary runs the spaces of an empty line together: ` ;  ; ` comes back as ` ; ; `.
_NEWLINE = re.compile(r" ;(?= ; )| ; ")


def to_plain(answer: str) -> str:
    """The answer in characters that T5's vocabulary has."""
    return _ANNOTATION.sub(r"[\1]", answer).replace("\n", " ; ")


def from_plain(text: str) -> str:
    """The answer as GSM8K writes it."""
    return _NEWLINE.sub("\n", _BRACKETS.sub(r"<<\1>>", text))


def questions_and_answers(dataset: Any) -> Any:
    """TFDS's examples as `inputs` and `targets`; the latter as `to_plain` has them, in TensorFlow."""
    import tensorflow as tf

    def question_and_answer(example: Mapping[str, Any]) -> dict[str, Any]:
        plain = tf.strings.regex_replace(example["answer"], _ANNOTATION.pattern, r"[\1]")
        return {"inputs": example["question"], "targets": tf.strings.regex_replace(plain, "\n", " ; ")}

    return dataset.map(question_and_answer, num_parallel_calls=tf.data.AUTOTUNE)


def postprocess(text: str, **_: Any) -> str:
    """Predictions and targets in the form of GSM8K."""
    return from_plain(text)


def accuracy(
    targets: Sequence[str], predictions: Sequence[str], *, lenient: bool = False
) -> dict[str, float]:
    """The fraction (0 to 1) of predictions whose final number is the target's, without and with the calculator.

    Args:
        targets: the targets in the form of GSM8K.
        predictions: one prediction for each prompt.
        lenient: whether a number without `####` before it counts; see `evaluation.final_number`.

    Returns:
        `accuracy`, and `accuracy_with_calculator`, which reads each prediction as `gsm8k_calculator` corrects it;
        targets stay as they are.
    """
    numbers = [final_number(target) for target in targets]
    corrected = [with_calculator(prediction) for prediction in predictions]
    return {
        "accuracy": _share_right(numbers, predictions, lenient),
        "accuracy_with_calculator": _share_right(numbers, corrected, lenient),
    }


def _share_right(numbers: Sequence[Fraction | None], predictions: Sequence[str], lenient: bool) -> float:
    predicted = [final_number(prediction, lenient=lenient) for prediction in predictions]
    right = [n is not None and n == target for n, target in zip(predicted, numbers, strict=True)]
    return sum(right) / max(len(right), 1)


def votes(
    targets: Sequence[str],
    predictions: Sequence[str],
    aux_values: Mapping[str, Any],
    *,
    lenient: bool = False,
) -> dict[str, float]:
    """`pass_at_N`, `maj_at_N` and weighted majorities of the final numbers of N samples a prompt; see `evaluation.votes`."""
    answers = [[final_number(text, lenient=lenient) for text in texts] for texts in aux_values["samples"]]
    return evaluation.votes(answers, [final_number(target) for target in targets], aux_values.get("scores"))


def _register() -> None:
    import seqio

    if "gsm8k" in seqio.TaskRegistry.names():
        return
    text = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    tokenize = [questions_and_answers, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    for name, lenient in (("gsm8k", False), ("gsm8k_lenient", True)):
        seqio.TaskRegistry.add(
            name,
            source=seqio.TfdsDataSource(
                "gsm8k:1.0.0", splits={"train": "train", "validation": "test", "test": "test"}
            ),
            preprocessors=tokenize,
            output_features={"inputs": text, "targets": text},
            postprocess_fn=postprocess,
            metric_fns=[functools.partial(f, lenient=True) if lenient else f for f in (accuracy, votes)],
        )


register_with_seqio(_register)

"""`number_paths`: add a few numbers in any order you like, and write down how.

    inputs    3+8+5+9
    targets   3+8=11 5+9=14 11+14=25

Each step takes two of the numbers that are left, in either order, and puts their sum back; the last sum is the answer.
Four different numbers have 144 right derivations: what a policy that keeps its diversity should find, and a checker can
count. Everything is generated from SEED and nothing is downloaded.

The splits share no prompt, but the same numbers in another order may well be in two of them: held-out accuracy does not
say that a model can add numbers it has never seen together. Splits disjoint by the numbers themselves would ask that, and
a tiny T5 needs more steps to answer than a quickstart has.

A training prompt comes with DERIVATIONS different answers, drawn evenly from all right ones; a
held-out prompt with one. `TASK_FEATURE_LENGTHS = {'inputs': 8, 'targets': 23}` holds all of them, with their EOS.

Metrics are fractions from 0 to 1, but for `distinct_valid`, a number of answers.
"""

import functools
import itertools
import pathlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from lmirl_jax import evaluation
from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import GivenText
from lmirl_jax.data.seqio_import import register_with_seqio

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {"number_paths": (("train", "validation", "test"), "generated", "add four numbers in any order")}

NUMBERS = 4  # in a prompt
LARGEST = 9  # of the numbers; the smallest is 1
DERIVATIONS = 8  # with each training prompt
HELD_OUT = 240  # prompts in validation, and as many in test
SEED = 0
SPLITS = ("train", "validation", "test")

# Numbers without leading zeros: else 03+8=11 would count as one more right answer.
_STEP = re.compile(r"([1-9][0-9]*)\+([1-9][0-9]*)=([1-9][0-9]*)")


class Derivation(NamedTuple):
    """The judgement of the checker on an answer.

    `valid`: every step is valid, and one number is left. `correct`: the last number is the sum, whatever the steps are.
    """

    valid_steps: int
    total_steps: int
    valid: bool
    correct: bool


def model() -> str:
    """The folder of a tiny T5 that knows this task, to fine-tune from. benchmarks/ship_model.py says how it was made."""
    return str(pathlib.Path(__file__).resolve().parent / "number_paths_model")


def check(prompt: str, answer: str) -> Derivation:
    """Judges any derivation.

    A step is valid if both its numbers are left and its sum is right. After a wrong sum the answer's number is
    the one that is left, so that one slip counts once. A step on numbers that are not left changes nothing. In an answer with
    too few steps the missing ones count as wrong.
    """
    left = [int(number) for number in prompt.split("+")]
    total, needed_steps = sum(left), len(left) - 1
    steps = answer.split(" ") if answer else []
    valid_steps = 0
    for step in steps:
        match = _STEP.fullmatch(step)
        if match is None:
            continue
        first, second, result = map(int, match.groups())
        rest = list(left)
        if first in rest:
            rest.remove(first)
            if second in rest:
                rest.remove(second)
                left = [*rest, result]
                valid_steps += first + second == result
    valid = valid_steps == len(steps) == needed_steps
    return Derivation(valid_steps, max(len(steps), needed_steps), valid, last_number(answer) == str(total))


def reward(prompt: GivenText, answer: GivenText) -> float:
    """1 for a right derivation, else 0: a reward function for policy gradients."""
    judgement = check(prompt, answer)
    return float(judgement.valid and judgement.correct)


def last_number(answer: str) -> str | None:
    """The text after the last equals sign; None where there is none."""
    return answer.rpartition("=")[2] if "=" in answer else None


@functools.cache
def derivations(numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Every right answer, as text, each once, in alphabetical order."""
    if len(numbers) == 1:
        return ("",)
    answers = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        rest = [number for k, number in enumerate(numbers) if k not in (i, j)]
        first, second = numbers[i], numbers[j]
        for tail in derivations(tuple(sorted([*rest, first + second]))):
            answers.add(f"{first}+{second}={first + second} {tail}".rstrip())
    return tuple(sorted(answers))


def prompts(split: str) -> list[tuple[int, ...]]:
    """The numbers of the prompts of a split, in the order of the prompt; no two splits share a prompt."""
    every = list(itertools.product(range(1, LARGEST + 1), repeat=NUMBERS))
    random.Random(f"{SEED} split").shuffle(every)
    bounds = {"validation": (0, HELD_OUT), "test": (HELD_OUT, 2 * HELD_OUT), "train": (2 * HELD_OUT, None)}
    return every[slice(*bounds[split])]


def examples(split: str) -> list[tuple[str, str]]:
    """Pairs of a prompt and an answer. In training every prompt has several different answers, shuffled over the list."""
    generator = random.Random(f"{SEED} {split}")
    pairs = []
    for numbers in prompts(split):
        answers = derivations(tuple(sorted(numbers)))
        count = DERIVATIONS if split == "train" else 1
        sample = generator.sample(answers, min(count, len(answers)))
        pairs += [("+".join(map(str, numbers)), answer) for answer in sample]
    if split == "train":
        generator.shuffle(pairs)
    return pairs


def dataset(split: str, shuffle_files: bool = False) -> Any:
    """The source, in SeqIO's form: a `tf.data.Dataset`."""
    return as_dataset(examples(split))


def as_dataset(pairs: Sequence[tuple[str, str]]) -> Any:
    """Pairs of a prompt and an answer as a `tf.data.Dataset`."""
    import tensorflow as tf

    inputs, targets = zip(*pairs, strict=True)
    return tf.data.Dataset.from_tensor_slices({"inputs": list(inputs), "targets": list(targets)})


def postprocess(
    text: str, is_target: bool = False, example: Mapping[str, Any] | None = None, **_: Any
) -> Any:
    """A prediction stays as it is; a target becomes a dict with its prompt, which the checker needs."""
    if not is_target:
        return text
    prompt = example["inputs_pretokenized"]
    return {"inputs": prompt.decode("utf-8") if isinstance(prompt, bytes) else prompt, "targets": text}


def judgements(targets: Sequence[Mapping[str, str]], predictions: Sequence[str]) -> dict[str, float]:
    """Fractions: `accuracy` of right final numbers, `valid` of wholly valid answers, `step_validity` of valid steps."""
    results = [check(target["inputs"], answer) for target, answer in zip(targets, predictions, strict=True)]
    steps = sum(derivation.total_steps for derivation in results)
    return {
        "accuracy": sum(derivation.correct for derivation in results) / max(len(results), 1),
        "valid": sum(derivation.valid for derivation in results) / max(len(results), 1),
        "step_validity": sum(derivation.valid_steps for derivation in results) / max(steps, 1),
    }


def distinct_answers(
    targets: Sequence[Mapping[str, str]], predictions: Sequence[str], aux_values: Mapping[str, Any]
) -> dict[str, float]:
    """`distinct_valid`: of all samples of a prompt, how many different texts are valid; the mean over prompts."""
    counts = [
        len({answer for answer in answers if check(target["inputs"], answer).valid})
        for target, answers in zip(targets, aux_values["samples"], strict=True)
    ]
    return {"distinct_valid": sum(counts) / max(len(counts), 1)}


def votes(
    targets: Sequence[Mapping[str, str]], predictions: Sequence[str], aux_values: Mapping[str, Any]
) -> dict[str, float]:
    """`pass_at_N`, `maj_at_N` and weighted majorities of the last numbers of N samples a prompt; see `evaluation.votes`."""
    sums = [str(sum(map(int, target["inputs"].split("+")))) for target in targets]
    answers = [list(map(last_number, texts)) for texts in aux_values["samples"]]
    return evaluation.votes(answers, sums, aux_values.get("scores"))


def with_wrong_sum(answer: str, step: int = 0) -> str:
    """The same derivation with the sum of one step 1 too large; the later steps use the wrong sum consistently."""
    steps = answer.split(" ")
    terms, _, number = steps[step].partition("=")
    wrong = str(int(number) + 1)
    steps[step] = f"{terms}={wrong}"
    for index in range(step + 1, len(steps)):
        one, _, rest = steps[index].partition("+")
        two, _, total = rest.partition("=")
        if number in (one, two):
            one, two = (wrong, two) if one == number else (one, wrong)
            number, wrong = total, str(int(one) + int(two))
            total = wrong
        steps[index] = f"{one}+{two}={total}"
    return " ".join(steps)


def wrong_step(
    inputs: GivenText, targets: GivenText, generator: Annotated[random.Random, GivenByCaller()]
) -> str | None:
    """A corruption: `with_wrong_sum` at a random step; None for an answer that is already wrong."""
    if not reward(inputs, targets):
        return None
    return with_wrong_sum(targets, generator.randrange(targets.count(" ") + 1))


def register(
    name: str, dataset: Callable[..., Any], metrics: Sequence[Callable[..., dict[str, float]]] = ()
) -> None:
    """Registers a task of such problems with SeqIO, unless it is registered already; by default with these metrics."""
    import seqio

    if name in seqio.TaskRegistry.names():
        return
    text = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset, splits=SPLITS),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": text, "targets": text},
        postprocess_fn=postprocess,
        metric_fns=list(metrics) or [judgements, distinct_answers, votes],
    )


register_with_seqio(lambda: register("number_paths", dataset))

"""`operation_chains`: carry out four to six operations from left to right, a line each.

    inputs    7*3+8-5*2
    targets   7*3=21
              21+8=29
              29-5=24
              24*2=48

Numbers of a prompt have one digit, and results are from 0 to 99. Every step has one right form, so that the first wrong one of an
answer is known: what learning from wrong answers needs, and what scores of steps are held to.

| task | targets |
|---|---|
| `operation_chains` | all lines |
| `operation_chains_values` | the result of each line alone: what is known of a solution whose operations were not written down |
| `operation_chains_answers` | the last result alone |
| `operation_chains_spurious` | all lines, and in SPURIOUS of the training answers one that is right by itself and of no use |

No two splits share a prompt. Everything is generated from SEED. `TASK_FEATURE_LENGTHS = {'inputs': 14, 'targets': 64}` holds
every text with its EOS. Metrics are fractions from 0 to 1.
"""

import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lmirl_jax.arguments import GivenText
from lmirl_jax.data.gaps import GAP
from lmirl_jax.data.seqio_import import register_with_seqio
from lmirl_jax.data.steps import split_steps
from lmirl_jax.tasks import number_paths

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "operation_chains": (
        ("train", "validation", "test"),
        "generated",
        "four to six operations, a line each",
    ),
    "operation_chains_values": (("train", "validation", "test"), "generated", "their results alone"),
    "operation_chains_answers": (("train", "validation", "test"), "generated", "the last result alone"),
    "operation_chains_spurious": (
        ("train", "validation", "test"),
        "generated",
        "the same with lines of no use",
    ),
}

OPERATIONS = range(4, 7)  # in a prompt
LARGEST = 99  # of the results
TRAIN = 16_000  # prompts
HELD_OUT = 500  # prompts in validation, and as many in test
SPURIOUS = 0.3  # the share of training answers with a line of no use, in `operation_chains_spurious`
SEED = 0

_PROMPT = re.compile(r"([1-9])((?:[-+*][1-9])+)")
_LINE = re.compile(r"(0|[1-9][0-9]*)([-+*])([1-9])=(0|[1-9][0-9]*)")


class Chain(NamedTuple):
    """The judgement of the checker on an answer.

    `steps`: whether each line is right. `correct`: the last number is right, whatever the lines are. `valid`: every line is, and
    none is missing.
    """

    steps: tuple[bool, ...]
    correct: bool
    valid: bool


def compute(value: int, operation: str, number: int) -> int:
    return {"+": value + number, "-": value - number, "*": value * number}[operation]


def parse(prompt: str) -> tuple[int, list[tuple[str, int]]]:
    """The first number of a prompt, and its operations with their numbers."""
    match = _PROMPT.fullmatch(prompt)
    if match is None:
        raise ValueError(f"{prompt!r} is no prompt of operation_chains")
    return int(match[1]), [(text[0], int(text[1])) for text in re.findall(r"[-+*][1-9]", match[2])]


def solve(prompt: str) -> str:
    """The right answer."""
    value, operations = parse(prompt)
    lines = []
    for operation, number in operations:
        result = compute(value, operation, number)
        lines.append(f"{value}{operation}{number}={result}")
        value = result
    return "\n".join(lines)


def check(prompt: str, answer: str) -> Chain:
    """Judges any answer.

    A line is right if it is the next operation, on the number that is left, with its result. After a wrong result that is the
    number which is left, so that one slip counts once. A line with something else is wrong and changes nothing;
    an empty one is none.
    """
    value, operations = parse(prompt)
    result = solve(prompt).rpartition("=")[2]
    steps: list[bool] = []
    place = 0
    for begin, end in split_steps(answer):
        match = _LINE.fullmatch(answer[begin:end])
        found = match and (int(match[1]), match[2], int(match[3]))
        if place == len(operations) or found != (value, *operations[place]):
            steps.append(False)
            continue
        written = int(match[4])
        steps.append(written == compute(value, *operations[place]))
        value, place = written, place + 1
    correct = number_paths.last_number(answer) == result if "=" in answer else answer == result
    return Chain(tuple(steps), correct, bool(steps) and all(steps) and place == len(operations))


def reward(prompt: GivenText, answer: GivenText) -> float:
    """1 where the last number is right, else 0: what a checker of final answers says."""
    return float(check(prompt, answer).correct)


def step_scores(prompt: GivenText, answer: GivenText) -> list[float]:
    """1 for each right line and 0 for each other one: the scores that others are held to."""
    return [float(step) for step in check(prompt, answer).steps]


def random_step_scores(prompt: GivenText, answer: GivenText) -> list[float]:
    """A random score for each line, always the same for the same texts: a control of scores that mean something."""
    generator = random.Random(f"{SEED} {prompt} {answer}")
    return [generator.random() for _ in split_steps(answer)]


def with_spurious_line(answer: str, generator: random.Random) -> str:
    """The answer with a line that is right by itself, of the number that is left, and that nothing follows from."""
    lines = answer.split("\n")
    place = generator.randrange(len(lines))
    value, operation, number, _ = _LINE.fullmatch(lines[place]).groups()
    following = operation + number
    others = [
        (operation, number)
        for operation in "+-*"
        for number in range(1, 10)
        if f"{operation}{number}" != following and 0 <= compute(int(value), operation, number) <= LARGEST
    ]
    other, by = generator.choice(others)
    extra = f"{value}{other}{by}={compute(int(value), other, by)}"
    return "\n".join([*lines[:place], extra, *lines[place:]])


def with_gaps(answer: GivenText) -> str:
    """The answer whose operations are missing: what an inverse model fills, `labelled.Gaps`."""
    return "\n".join(f"{GAP}={line.rpartition('=')[2]}" for line in answer.split("\n"))


def with_one_gap(answer: GivenText) -> str:
    """The answer of which all but the last number is missing."""
    return f"{GAP}={answer.rpartition('=')[2]}"


def consistent(prompt: GivenText, answer: GivenText) -> float:
    """1 where every line computes and goes on from the result before it, else 0; the prompt's operations are not looked at."""
    lines = [_LINE.fullmatch(line) for line in answer.split("\n")]
    matches = [match.groups() for match in lines if match]
    right = [compute(int(first), sign, int(second)) == int(result) for first, sign, second, result in matches]
    follow = [one[3] == two[0] for one, two in itertools.pairwise(matches)]
    return float(len(matches) == len(lines) and all(right) and all(follow))


def values_only(answer: str) -> str:
    """The result of each line."""
    return "\n".join(line.rpartition("=")[2] for line in answer.split("\n"))


def _draw(generator: random.Random) -> str:
    """A prompt; each operation is as likely as the others that have a number to go with."""
    value = generator.randint(1, 9)
    text = str(value)
    for _ in range(generator.choice(OPERATIONS)):
        fitting = {
            operation: [n for n in range(1, 10) if 0 <= compute(value, operation, n) <= LARGEST]
            for operation in "+-*"
        }
        operation = generator.choice([operation for operation, numbers in fitting.items() if numbers])
        number = generator.choice(fitting[operation])
        text, value = f"{text}{operation}{number}", compute(value, operation, number)
    return text


@functools.cache
def _every() -> list[str]:
    generator = random.Random(f"{SEED} prompts")
    found: dict[str, None] = {}
    while len(found) < TRAIN + 2 * HELD_OUT:
        found[_draw(generator)] = None
    return list(found)


def prompts(split: str) -> list[str]:
    """The prompts of a split; no two splits share one."""
    bounds = {"validation": (0, HELD_OUT), "test": (HELD_OUT, 2 * HELD_OUT), "train": (2 * HELD_OUT, None)}
    return _every()[slice(*bounds[split])]


def examples(split: str) -> list[tuple[str, str]]:
    """Pairs of a prompt and its answer."""
    return [(prompt, solve(prompt)) for prompt in prompts(split)]


def spurious_examples(split: str) -> list[tuple[str, str]]:
    """The same, with lines of no use in SPURIOUS of the training answers."""
    generator = random.Random(f"{SEED} {split} spurious")
    pairs = examples(split)
    if split != "train":
        return pairs
    return [
        (prompt, with_spurious_line(answer, generator) if generator.random() < SPURIOUS else answer)
        for prompt, answer in pairs
    ]


def dataset(split: str, shuffle_files: bool = False) -> Any:
    """The source, in SeqIO's form: a `tf.data.Dataset`."""
    return number_paths.as_dataset(examples(split))


def values_dataset(split: str, shuffle_files: bool = False) -> Any:
    return number_paths.as_dataset([(prompt, values_only(answer)) for prompt, answer in examples(split)])


def answers_dataset(split: str, shuffle_files: bool = False) -> Any:
    return number_paths.as_dataset(
        [(prompt, answer.rpartition("=")[2]) for prompt, answer in examples(split)]
    )


def spurious_dataset(split: str, shuffle_files: bool = False) -> Any:
    return number_paths.as_dataset(spurious_examples(split))


def judgements(targets: Sequence[Mapping[str, str]], predictions: Sequence[str]) -> dict[str, float]:
    """Fractions: `accuracy` of right final numbers, `valid` of wholly right answers, `step_validity` of right lines."""
    results = [check(target["inputs"], answer) for target, answer in zip(targets, predictions, strict=True)]
    steps = [step for chain in results for step in chain.steps]
    return {
        "accuracy": sum(chain.correct for chain in results) / max(len(results), 1),
        "valid": sum(chain.valid for chain in results) / max(len(results), 1),
        "step_validity": sum(steps) / max(len(steps), 1),
    }


def _register() -> None:
    sources = {
        "operation_chains": dataset,
        "operation_chains_values": values_dataset,
        "operation_chains_answers": answers_dataset,
        "operation_chains_spurious": spurious_dataset,
    }
    for name, source in sources.items():
        number_paths.register(name, source, [judgements])


register_with_seqio(_register)

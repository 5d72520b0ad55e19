"""Corruptions: answers damaged in one place, to test whether a reward notices.

A kind of damage is a function of `(inputs, targets, random)`. It returns a `Corruption`, or only the damaged text (the place
is then where the two texts first differ), or None for an answer that it cannot damage. A task may define its own, such as
`tasks.number_paths.wrong_step`.

A place is a range of characters, or an empty range at the end of the text for EOS. Its rewards are compared with those of the
same words in the original, or of the words that they replaced.
"""

import dataclasses
import random as random_module
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated

from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import GivenText, Text, check_arguments
from lmirl_jax.data.steps import Span, split_steps
from lmirl_jax.types import UserError

# The number of draws of a damage after which an answer counts as having no place for it.
TRIES = 10


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A damaged answer.

    Args:
        targets: the damaged text.
        span: the place of the damage in this text.
        original_span: the place in the original text that it is compared with.
        kind: the name of the damage.
    """

    targets: str
    span: Span
    original_span: Span
    kind: str = ""


GivenRandom = Annotated[Random, GivenByCaller()]
Damage = Callable[[str, str, Random], Corruption | str | None]


def wrong_digit(inputs: GivenText, targets: GivenText, random: GivenRandom) -> Corruption | None:
    """Replaces one digit, drawn from all, by another one. A number of several digits gets no leading zero."""
    places = [(match.start(), match.end()) for match in re.finditer(r"[0-9]+", targets)]
    digits = [(i, i == begin and end - begin > 1) for begin, end in places for i in range(begin, end)]
    if not digits:
        return None
    index, leading = random.choice(digits)
    others = [digit for digit in "0123456789" if digit != targets[index] and not (leading and digit == "0")]
    damaged = targets[:index] + random.choice(others) + targets[index + 1 :]
    return Corruption(damaged, (index, index + 1), (index, index + 1))


@check_arguments
def dropped_step(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """Leaves out one step, but not the last one. The place is the step that now comes too early.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: the source of randomness.
        separator: see `data.steps.split_steps`.
    """
    steps = split_steps(targets, separator)
    if len(steps) < 2:
        return None
    dropped = random.randrange(len(steps) - 1)
    (begin, _), (following, end) = steps[dropped], steps[dropped + 1]
    return Corruption(
        targets[:begin] + targets[following:], (begin, begin + end - following), (following, end)
    )


@check_arguments
def shuffled_steps(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """Puts the steps in another order and leaves the text between them. The place is the first step that moved.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: the source of randomness.
        separator: see `data.steps.split_steps`.
    """
    steps = split_steps(targets, separator)
    texts = [targets[begin:end] for begin, end in steps]
    if len(set(texts)) < 2:
        return None
    order = list(range(len(steps)))
    while [texts[i] for i in order] == texts:
        random.shuffle(order)
    first = next(k for k, i in enumerate(order) if texts[i] != texts[k])
    pieces, end = [], 0
    for (begin, stop), i in zip(steps, order, strict=True):
        pieces += [targets[end:begin], texts[i]]
        end = stop
    begin, length = steps[first][0], len(texts[order[first]])
    return Corruption("".join(pieces) + targets[end:], (begin, begin + length), steps[order[first]])


@check_arguments
def repeated_step(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """Repeats one step directly after itself. The place is the repetition.

    For the last step the place includes the separator before the repetition, because EOS belongs there. An answer with one step
    has no separator and cannot be damaged.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: the source of randomness.
        separator: see `data.steps.split_steps`.
    """
    steps = split_steps(targets, separator)
    if len(steps) < 2:
        return None
    index = random.randrange(len(steps))
    begin, end = steps[index]
    last = index == len(steps) - 1
    between = targets[steps[index - 1][1] : begin] if last else targets[end : steps[index + 1][0]]
    repetition = between + targets[begin:end]
    damaged = targets[:end] + repetition + targets[end:]
    if last:
        return Corruption(damaged, (end, end + len(repetition)), (begin - len(between), end))
    return Corruption(damaged, (end + len(between), end + len(repetition)), (begin, end))


@check_arguments
def truncation(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """Ends the answer after one of its steps, but not the last one. The place is EOS, compared with the original's EOS.

    The damaged answer has EOS: the policy claims to be done, and a reward should punish that. Without EOS the last token of the
    answer would have no reward, and the return would say nothing about the early end.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: the source of randomness.
        separator: see `data.steps.split_steps`.
    """
    steps = split_steps(targets, separator)
    if len(steps) < 2:
        return None
    end = random.choice(steps[:-1])[1]
    return Corruption(targets[:end], (end, end), (len(targets), len(targets)))


CORRUPTIONS: Mapping[str, Damage] = {
    "wrong digit": wrong_digit,
    "dropped step": dropped_step,
    "shuffled steps": shuffled_steps,
    "repeated step": repeated_step,
    "truncation": truncation,
}


def corrupt(
    inputs: str,
    targets: str,
    kinds: Mapping[str, Damage] = CORRUPTIONS,
    *,
    seed: int = 0,
    is_right: Callable[[str, str], float] | None = None,
) -> list[Corruption]:
    """Damages an answer once in each of several ways.

    Args:
        inputs: the prompt.
        targets: the answer.
        kinds: the functions that damage the answer, by name.
        seed: the draws depend on it, on the name of the damage and on both texts, and not on other answers.
        is_right: a function of prompt and answer, 0 where the answer is wrong. A damaged answer that is still right, such as
            two steps in the other order, is drawn again, up to 10 times. None takes every damaged answer as wrong.

    Returns:
        One damaged answer for each kind that can damage this answer.

    Raises:
        UserError: a kind returned the answer unchanged.
    """
    corruptions = (_draw(name, damage, inputs, targets, seed, is_right) for name, damage in kinds.items())
    return [corruption for corruption in corruptions if corruption is not None]


def _draw(
    name: str,
    damage: Damage,
    inputs: str,
    targets: str,
    seed: int,
    is_right: Callable[[str, str], float] | None,
) -> Corruption | None:
    random = random_module.Random("\0".join([str(seed), name, inputs, targets]))
    for _ in range(TRIES):
        damaged = damage(inputs, targets, random)
        if damaged is None:
            return None
        text = damaged if isinstance(damaged, str) else damaged.targets
        if text == targets:
            raise UserError(
                f"corruption {name!r} left {targets!r} as it was: let its function return None where there is nothing to damage"
            )
        if is_right is None or not is_right(inputs, text):
            corruption = _first_difference(targets, damaged) if isinstance(damaged, str) else damaged
            return dataclasses.replace(corruption, kind=name)
    return None


def _first_difference(original: str, damaged: str) -> Corruption:
    """The corruption whose place runs from the first character that differs to the end of the word, in both texts."""
    begin = 0
    while begin < min(len(original), len(damaged)) and original[begin] == damaged[begin]:
        begin += 1
    return Corruption(damaged, (begin, _word_end(damaged, begin)), (begin, _word_end(original, begin)))


def _word_end(text: str, begin: int) -> int:
    space = re.compile(r"\s").search(text, begin + 1)
    return space.start() if space else len(text)

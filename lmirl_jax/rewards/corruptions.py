"""Corruption tests: an answer damaged in one place, for a reward to find.

A kind of damage is a function of `(inputs, targets, random)`. It returns a `Corruption`, or the damaged text alone (the
place is then where the two texts first differ), or None for an answer that it cannot damage. A task may bring its own, as
`tasks.number_paths.wrong_step` is.

A place is a range of characters, or an empty one at the very end for EOS. It is compared with the same words where they
stood in the original; where other words replaced them, with those that stood there.
"""

import dataclasses
import random as random_module
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated

from lmirl_jax.argument_rules import GivenByCaller
from lmirl_jax.arguments import GivenText, Text, checked
from lmirl_jax.rewards.steps import Span, split_steps
from lmirl_jax.types import UserError

TRIES = 10  # Draws of one damage before an answer counts as having no place for it.


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A damaged answer.

    Args:
        targets: its text.
        span: where the damage shows first, in this text.
        original_span: what this place is compared with, in the original text.
        kind: the name of the damage.
    """

    targets: str
    span: Span
    original_span: Span
    kind: str = ""


GivenRandom = Annotated[Random, GivenByCaller()]
Damage = Callable[[str, str, Random], Corruption | str | None]


def wrong_digit(inputs: GivenText, targets: GivenText, random: GivenRandom) -> Corruption | None:
    """Another digit in place of one, drawn from all; no number of several digits begins with a 0 that did not before."""
    places = [(match.start(), match.end()) for match in re.finditer(r"[0-9]+", targets)]
    digits = [(i, i == begin and end - begin > 1) for begin, end in places for i in range(begin, end)]
    if not digits:
        return None
    index, leading = random.choice(digits)
    others = [digit for digit in "0123456789" if digit != targets[index] and not (leading and digit == "0")]
    damaged = targets[:index] + random.choice(others) + targets[index + 1 :]
    return Corruption(damaged, (index, index + 1), (index, index + 1))


@checked
def dropped_step(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """A step left out, any but the last; the place is the step that now follows too early.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: what is drawn from.
        separator: see `rewards.split_steps`.
    """
    steps = split_steps(targets, separator)
    if len(steps) < 2:
        return None
    dropped = random.randrange(len(steps) - 1)
    (begin, _), (following, end) = steps[dropped], steps[dropped + 1]
    return Corruption(
        targets[:begin] + targets[following:], (begin, begin + end - following), (following, end)
    )


@checked
def shuffled_steps(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """The steps in another order, what stands between them left in place; the place is the first that moved.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: what is drawn from.
        separator: see `rewards.split_steps`.
    """
    steps = split_steps(targets, separator)
    texts = [targets[begin:end] for begin, end in steps]
    if len(set(texts)) < 2:
        return None
    order = list(range(len(steps)))
    while [texts[i] for i in order] == texts:
        random.shuffle(order)
    moved = next(k for k, i in enumerate(order) if texts[i] != texts[k])
    pieces, end = [], 0
    for (begin, stop), i in zip(steps, order, strict=True):
        pieces += [targets[end:begin], texts[i]]
        end = stop
    begin, length = steps[moved][0], len(texts[order[moved]])
    return Corruption("".join(pieces) + targets[end:], (begin, begin + length), steps[order[moved]])


@checked
def repeated_step(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """A step said twice in a row; the place is the second time, and of the last step with what stands before it.

    There EOS was due: the damage shows before the step's first word. An answer of one step has nothing to stand between.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: what is drawn from.
        separator: see `rewards.split_steps`.
    """
    steps = split_steps(targets, separator)
    if len(steps) < 2:
        return None
    index = random.randrange(len(steps))
    begin, end = steps[index]
    last = index == len(steps) - 1
    between = targets[steps[index - 1][1] : begin] if last else targets[end : steps[index + 1][0]]
    added = between + targets[begin:end]
    damaged = targets[:end] + added + targets[end:]
    if last:
        return Corruption(damaged, (end, end + len(added)), (begin - len(between), end))
    return Corruption(damaged, (end + len(between), end + len(added)), (begin, end))


@checked
def truncation(
    inputs: GivenText, targets: GivenText, random: GivenRandom, separator: Text | None = None
) -> Corruption | None:
    """The answer ends after one of its steps, any but the last; the place is its EOS, compared with the original's.

    EOS is kept: the policy says that it is done, which a reward should hold against it. Without EOS the last token of the
    answer would have no reward at all, and the return would say nothing of the end.

    Args:
        inputs: the prompt; unused.
        targets: the answer.
        random: what is drawn from.
        separator: see `rewards.split_steps`.
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
    """An answer damaged once in each of several ways.

    Args:
        inputs: the prompt.
        targets: the answer.
        kinds: how to damage it, by name.
        seed: with the name and both texts it determines what is drawn; other answers do not.
        is_right: a function of prompt and answer, 0 where the answer is wrong. A damage that it still calls right, such as
            two steps that may stand in either order, is drawn again, up to 10 times. None to take all as wrong.

    Returns:
        One damaged answer for each kind that finds a place in this one.

    Raises:
        UserError: a kind returned the answer as it was.
    """
    found = (_drawn(name, damage, inputs, targets, seed, is_right) for name, damage in kinds.items())
    return [corruption for corruption in found if corruption is not None]


def _drawn(
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
    """From the first character that differs to the end of the word there, in both."""
    begin = 0
    while begin < min(len(original), len(damaged)) and original[begin] == damaged[begin]:
        begin += 1
    return Corruption(damaged, (begin, _word_end(damaged, begin)), (begin, _word_end(original, begin)))


def _word_end(text: str, begin: int) -> int:
    space = re.compile(r"\s").search(text, begin + 1)
    return space.start() if space else len(text)

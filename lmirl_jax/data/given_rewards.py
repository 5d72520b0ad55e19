"""Rewards that the data give: `reward`, a number for a whole answer, or `rewards`, a number for each of its tokens; or labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from lmirl_jax.argument_rules import fits
from lmirl_jax.types import UserError

REWARD = "reward"  # One number for the whole answer, paid at its last token.
STEP_REWARDS = "step_rewards"  # A list with one number for each line of the answer, paid at its last token.
REWARDS = "rewards"  # A list with one number for each token of the answer, EOS included.


LABEL = "label"  # Whether the answer is right; without a reward beside it, it is rewarded with 1, or 0 where it is wrong.


def has_label(features: Mapping[str, Any]) -> bool:
    """Whether an example says that its answer is right, or wrong; a SeqIO task may pass on the number of a class."""
    return isinstance(features.get(LABEL), bool)


def has_rewards(features: Mapping[str, Any]) -> bool:
    """Whether an example gives rewards."""
    return REWARD in features or REWARDS in features or has_label(features)


def check_rewards(features: Mapping[str, Any], tokens: int, where: str) -> None:
    """Checks the rewards of an example, if it has any.

    Args:
        features: the features of the example.
        tokens: the number of tokens of the answer, EOS included.
        where: the name of the example in errors.

    Raises:
        UserError: both keys are given, the list has another length, or a value is not a finite number.
    """
    if REWARD in features and REWARDS in features:
        raise UserError(
            f"{where}: both {REWARD!r} and {REWARDS!r}; keep {REWARD!r}, one number for the whole answer, or {REWARDS!r}, a "
            "list with one number for each of its tokens"
        )
    if REWARD in features:
        number = features[REWARD]
        if isinstance(number, list):
            raise UserError(
                f"{where}: reward is a list, not a number; name a list with one number for each token {REWARDS!r}"
            )
        check_number(number, f"{where}: reward")
    if REWARDS not in features:
        return
    numbers = features[REWARDS]
    if not isinstance(numbers, list):
        raise UserError(
            f"{where}: rewards is {type(numbers).__name__}, not a list; write a list with one number for each token of the "
            f"answer, or {REWARD!r}, one number for all of it"
        )
    for position, number in enumerate(numbers, start=1):
        check_number(number, f"{where}: number {position} of rewards")
    if len(numbers) != tokens:
        raise UserError(
            f"{where}: rewards has {len(numbers)} numbers and the answer has {tokens} tokens with the one that ends it; write "
            f"one number for each of them, or {REWARD!r}, one number for the whole answer"
        )


def check_turns(features: Mapping[str, Any], turns: int, where: str) -> None:
    """Raises a UserError if rewards of tokens are given for a conversation of several assistant turns."""
    if STEP_REWARDS in features:
        raise UserError(
            f"{where}: {STEP_REWARDS} for a conversation; write {REWARD!r}, one number that is paid at the end of the last "
            "turn, or inputs and targets"
        )
    if REWARDS in features and turns > 1:
        raise UserError(
            f"{where}: rewards for the tokens of {turns} assistant turns; write {REWARD!r}, one number that is paid at the end "
            "of the last turn, or a line for each turn"
        )


def token_rewards(features: Mapping[str, Any], tokens: int) -> Float32[np.ndarray, " tokens"] | None:
    """The reward of each token of an answer, from features that passed `check_rewards`; None if they have no rewards."""
    if REWARDS in features:
        return np.array(features[REWARDS], np.float32)
    if REWARD not in features and not has_label(features):
        return None
    rewards = np.zeros(tokens, np.float32)
    rewards[-1:] = features[REWARD] if REWARD in features else features[LABEL]
    return rewards


def check_number(number: Any, what: str) -> None:
    """Raises a UserError, which says `what`, unless this is a finite number that float32 holds."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(
            f"{what} is {type(number).__name__}, not a number; write a finite number, or leave it out"
        )
    if not fits(number, float):
        raise UserError(f"{what} is {number}; write a finite number that float32 holds, or leave it out")

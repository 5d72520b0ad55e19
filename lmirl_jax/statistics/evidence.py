"""When there is evidence enough for an interval or a verdict: the minimum numbers, for every statistic in one place.

The numbers come from simulations (tests/statistics/test_coverage.py holds them small): rank correlations of 20 to 400 prompts
with 1 to 8 answers, rare right answers (1 to 40), with and without a relation, alike or unlike within prompts. A percentile
bootstrap covered .81 to .90 there with few events; widened for the number of events, and with undefined draws beyond both
ends, it covers .92 or more from 8 events on. Below that most intervals end at an undefined draw.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

FEWEST_PROMPTS = 10
# Prompts in which something other than the commonest value is seen. Of 400 answers with 3 right ones, only 3 prompts tell
# right from wrong, however many answers there are.
FEWEST_EVENTS = 8
# Cases of a share in a sentence that concludes something; Wilson's interval itself holds for any number.
FEWEST_CASES = 10
# Two-sided, of each of the two tests (pooled and within prompt) that a verdict on a correlation rests on: both together err
# in at most 5% of verdicts where there is no relation.
LEVEL = 0.025


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a statistic rests on.

    Args:
        prompts: over which it is taken.
        of: how many prompts there are.
        events: prompts in which something other than the commonest value is seen; of two variables the smaller number.
        what: the variable with that number, in words.
    """

    prompts: int
    of: int
    events: int
    what: str = "the value"

    @property
    def too_few(self) -> str | None:
        """Why nothing is concluded, with the numbers; None where there is enough."""
        if self.prompts < FEWEST_PROMPTS:
            return (
                f"{self.prompts} of {counted(self.of, 'prompt')} can be counted, {FEWEST_PROMPTS} are needed"
            )
        if self.events < FEWEST_EVENTS:
            return (
                f"{self.what} differs from its commonest value in {self.events} of {counted(self.prompts, 'prompt')}, "
                f"{FEWEST_EVENTS} are needed"
            )
        return None


def event_prompts(
    values: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, " events"]:
    """The prompts with an answer whose value is not the commonest one: the evidence that a rare event leaves.

    Args:
        values: one an answer.
        prompts: of each answer; None where there is one answer to each.
    """
    if not len(values):
        return np.empty(0, int)
    different, counts = np.unique(values, return_counts=True)
    places = np.flatnonzero(values != different[counts.argmax()])
    return places if prompts is None else np.unique(prompts[places])


def conclusion(low: float | None, high: float | None, p_value: float | None) -> str:
    """What interval and permutation test say together of a correlation: "positive", "negative", "none", "unclear" or "too few".

    A sign takes both: an interval that excludes 0 and a p-value of at most LEVEL. Where only one of them shows a relation it is
    unclear. Simulated without a relation (tests/statistics/test_coverage.py), either sign of the two correlations that a
    verdict is about is concluded in less than 5% of verdicts.
    """
    if low is None or high is None:
        return "too few"
    shows = low > 0 or high < 0
    if p_value is not None and shows != (p_value <= LEVEL):
        return "unclear"
    return ("positive" if low > 0 else "negative") if shows else "none"


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 prompt, 2 prompts."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_of(count: int, available: int | None, noun: str = "prompt") -> str:
    """Over how many of how many: `the first 100 of 150 prompts`, `all 150 prompts`; `150 prompts` where it is not known."""
    if available is None or available == count == 1:
        return counted(count, noun)
    return (
        f"all {counted(count, noun)}"
        if count == available
        else f"the first {count} of {counted(available, noun)}"
    )

"""The smallest numbers of prompts and events that an interval or a verdict needs, for every statistic in one place.

The numbers come from simulations (tests/statistics/test_coverage.py holds them small): rank correlations of 20 to 400 prompts
with 1 to 8 answers, rare right answers (1 to 40), with and without a relation, alike or unlike within prompts. A percentile
bootstrap covered .81 to .90 there with few events; widened for the number of events, and with undefined draws beyond both
ends, it covers .92 or more from 8 events on. Below that most intervals end at an undefined draw.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

FEWEST_PROMPTS = 10
# An event is a prompt in which a value other than the commonest one occurs. With 3 right answers among 400, at most 3 prompts
# tell right from wrong, however many answers there are.
FEWEST_EVENTS = 8
# The cases that a share needs before a sentence concludes something from it. Wilson's interval itself holds for any number.
FEWEST_CASES = 10
# The two-sided level of each of the two tests (pooled and within prompt) behind a verdict on a correlation. Where there is no
# relation, at least one of the two errs in at most 5% of verdicts.
LEVEL = 0.025


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The numbers of prompts and events behind a statistic.

    Args:
        prompts: the number of prompts that the statistic is computed over.
        of: the number of prompts in the data.
        events: the number of prompts in which a value other than the commonest one occurs; of two variables the smaller number.
        what: the variable with that number, in words.
    """

    prompts: int
    of: int
    events: int
    what: str = "the value"

    @property
    def too_few(self) -> str | None:
        """The reason why nothing is concluded, with the numbers; None where there is enough evidence."""
        if self.prompts < FEWEST_PROMPTS:
            return f"{self.prompts} of {pluralise(self.of, 'prompt')} can be counted, {FEWEST_PROMPTS} are needed"
        if self.events < FEWEST_EVENTS:
            return (
                f"{self.what} differs from its commonest value in {self.events} of {pluralise(self.prompts, 'prompt')}, "
                f"{FEWEST_EVENTS} are needed"
            )
        return None


def event_prompts(
    values: Float[np.ndarray, " n"], prompts: Int[np.ndarray, " n"] | None = None
) -> Int[np.ndarray, " events"]:
    """The prompts with an answer whose value is not the commonest one: the evidence that a rare event leaves.

    Args:
        values: one value for each answer.
        prompts: the prompt of each answer; None where each prompt has one answer.
    """
    if not len(values):
        return np.empty(0, int)
    different, counts = np.unique(values, return_counts=True)
    places = np.flatnonzero(values != different[counts.argmax()])
    return places if prompts is None else np.unique(prompts[places])


def conclusion(low: float | None, high: float | None, p_value: float | None) -> str:
    """The conclusion from the interval and the permutation test: "positive", "negative", "none", "unclear" or "too few".

    A sign needs both: an interval that excludes 0, and a p-value of at most LEVEL. The result is "unclear" where only one of
    them shows a relation. Simulated without a relation
    (tests/statistics/test_coverage.py), less than 5% of verdicts conclude a sign of either of their two correlations.
    """
    if low is None or high is None:
        return "too few"
    shows = low > 0 or high < 0
    if p_value is not None and shows != (p_value <= LEVEL):
        return "unclear"
    return ("positive" if low > 0 else "negative") if shows else "none"


def pluralise(count: int, noun: str) -> str:
    """A number with its noun, in the plural where needed: 1 prompt, 2 prompts."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_of(count: int, available: int | None, noun: str = "prompt") -> str:
    """Says how many of the available ones were used: `the first 100 of 150 prompts`, `all 150 prompts`, or `150 prompts`."""
    if available is None or available == count == 1:
        return pluralise(count, noun)
    return (
        f"all {pluralise(count, noun)}"
        if count == available
        else f"the first {count} of {pluralise(available, noun)}"
    )

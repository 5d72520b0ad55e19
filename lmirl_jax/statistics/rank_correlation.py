"""Rank correlations of answers that belong to prompts: pooled over all answers, and within each prompt."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.types import UserError

# A correlation over all answers at once, or the mean over prompts of the correlation within each prompt.
POOLED, WITHIN = "pooled", "within prompt"


@dataclasses.dataclass(frozen=True)
class AnswerTable:
    """The variables of the answers of one seed.

    Args:
        names: the names of the variables.
        values: the value of each variable for each answer.
        prompts: the number of each answer's prompt, 0 to `prompt_count` - 1, in ascending order. The same number is the same
            prompt in the tables of all seeds.
        prompt_count: the number of prompts; some may have no answer in this table.
    """

    names: tuple[str, ...]
    values: Float[np.ndarray, "variables answers"]
    prompts: Int[np.ndarray, " answers"]
    prompt_count: int

    def __post_init__(self):
        if np.any(np.diff(self.prompts) < 0):
            raise ValueError("the answers of a table must be in the order of their prompts")
        for name, row in zip(self.names, self.values, strict=True):
            if not np.isfinite(row).all():
                raise UserError(f"correlations: {name} of an answer is not finite; leave that answer out")

    @property
    def counts(self) -> Int[np.ndarray, " prompts"]:
        """The number of answers to each prompt."""
        return np.bincount(self.prompts, minlength=self.prompt_count)

    def rows(self, names: Sequence[str]) -> Float[np.ndarray, "variables answers"]:
        """The values of these variables."""
        return self.values[[self.names.index(name) for name in names]]


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation; None where either side is constant."""
    return _scipy_correlation("spearmanr", x, y)


def kendall(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    """Kendall's tau-b, which allows for ties; None where either side is constant."""
    return _scipy_correlation("kendalltau", x, y)


def pooled_ranks(values: Float[np.ndarray, "variables n"]) -> Float[np.ndarray, "variables n"]:
    """Ranks among all answers, ties sharing their mean, standardised so that products sum to Spearman's correlation.

    A constant variable is 0 everywhere.
    """
    return ranks_within(values, np.zeros(values.shape[1], int), 1)


def ranks_within(
    values: Float[np.ndarray, "variables n"], prompts: Int[np.ndarray, " n"], prompt_count: int
) -> Float[np.ndarray, "variables n"]:
    """Ranks among the answers of the same prompt, ties sharing their mean, standardised in each prompt.

    Products of two rows sum to Spearman's correlation over each prompt's answers; a variable that is constant within a prompt
    is 0 there.
    """
    result = np.empty_like(values, dtype=float)
    counts = np.bincount(prompts, minlength=prompt_count)
    for row, ranks in zip(values, result, strict=True):
        order = np.lexsort((row, prompts))
        new = np.ones(len(row), bool)
        new[1:] = (np.diff(row[order]) != 0) | (np.diff(prompts[order]) != 0)
        tie = np.cumsum(new) - 1
        places = np.arange(len(row))
        ranks[order] = (np.bincount(tie, places) / np.bincount(tie))[tie]
        ranks -= (np.bincount(prompts, ranks, prompt_count) / np.maximum(counts, 1))[prompts]
        size = np.sqrt(np.bincount(prompts, ranks**2, prompt_count))
        ranks /= np.where(size < 1e-9, np.inf, size)[prompts]
    return result


def spearman_by_prompt(
    x: Float[np.ndarray, "measures n"],
    y: Float[np.ndarray, "metrics n"],
    prompts: Int[np.ndarray, " n"],
    prompt_count: int,
) -> Float[np.ndarray, "measures metrics prompts"]:
    """Spearman's correlation over each prompt's answers, every measure with every metric; NaN where it is undefined."""
    first, second = (ranks_within(values, prompts, prompt_count) for values in (x, y))
    result = np.empty((len(x), len(y), prompt_count))
    varies = [
        np.stack([np.bincount(prompts, row**2, prompt_count) > 0.5 for row in z]) for z in (first, second)
    ]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            result[i, j] = np.where(
                varies[0][i] & varies[1][j], np.bincount(prompts, a * b, prompt_count), np.nan
            )
    return result


def kendall_by_prompt(
    x: Float[np.ndarray, "measures n"],
    y: Float[np.ndarray, "metrics n"],
    prompts: Int[np.ndarray, " n"],
    prompt_count: int,
) -> Float[np.ndarray, "measures metrics prompts"]:
    """Kendall's tau-b over each prompt's answers, every measure with every metric; NaN where it is undefined."""
    values, m = np.concatenate([x, y]), len(x)
    result = np.full((m, len(y), prompt_count), np.nan)
    bounds = np.searchsorted(prompts, np.arange(prompt_count + 1))
    for prompt, (begin, end) in enumerate(itertools.pairwise(bounds)):
        answers = values[:, begin:end]
        signs = np.sign(answers[:, :, None] - answers[:, None, :]).reshape(len(values), -1)
        concordant = signs @ signs.T
        sizes = np.sqrt(np.diag(concordant))
        scale = np.outer(sizes[:m], sizes[m:])
        result[..., prompt] = np.divide(
            concordant[:m, m:], scale, out=np.full(scale.shape, np.nan), where=scale > 0
        )
    return result


def _scipy_correlation(name: str, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float | None:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    # The import is here, because loading scipy takes half a second.
    from scipy import stats

    return float(getattr(stats, name)(x, y).statistic)

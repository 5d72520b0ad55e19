"""Splits the correlation of a sum with a metric into the contributions of its parts.

For example, a return is the sum of the log-likelihood of an answer and the soft value of its prompt.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.statistics.bootstrap import interval_of, resampling_weights, seed_mean
from lmirl_jax.statistics.correlation_samples import pooled_evidence
from lmirl_jax.statistics.permutation_tests import DRAWS
from lmirl_jax.statistics.rank_correlation import AnswerTable


@dataclasses.dataclass(frozen=True)
class Share:
    """The contribution of one part to a correlation.

    `low` and `high` are the ends of the 95% bootstrap interval over prompts; they are None where there is too little evidence.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None


def correlation_split(
    tables: Sequence[AnswerTable], parts: Sequence[str], metric: str, *, seed: int = 0, draws: int = DRAWS
) -> list[Share]:
    """Splits Pearson's correlation of a sum with a metric, over all answers, into one share for each part of the sum.

        corr(sum of parts, metric) = sum over parts of cov(part, metric) / (sd(sum of parts) * sd(metric))

    Args:
        tables: a table for each seed; the result is the mean over seeds.
        parts: the names of the variables that are summed.
        metric: the name of a variable.
        seed: the seed of the bootstrap.
        draws: the number of draws of the bootstrap.

    Returns:
        The share of each part, in the order of `parts`, and last "total", which is the sum of the shares.
    """
    all_prompts = np.ones((1, tables[0].prompt_count))
    prompts = np.concatenate([all_prompts, resampling_weights(tables[0].prompt_count, seed, draws)])
    seeds = np.concatenate([
        np.full((1, len(tables)), 1 / len(tables)), resampling_weights(len(tables), seed + 1, draws)
    ])  # fmt: skip
    by_seed = [_shares(t.rows(parts), t.rows([metric])[0], t.prompts, prompts) for t in tables]
    by_draw = seed_mean(np.stack(by_seed, axis=1), seeds)
    # Only the metric can lack evidence: a part that is the same in all answers simply adds 0.
    evidence = pooled_evidence(tables, metric)
    shares = []
    for name, column in zip([*parts, "total"], by_draw.T, strict=True):
        (value,) = _finite(column[0])
        shares.append(Share(name, value, *interval_of(value, column[1:], evidence)))
    return shares


def _shares(
    parts: Float[np.ndarray, "parts n"],
    metric: Float[np.ndarray, " n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws some"]:
    """The share of each part and of their sum, under each draw of prompts; NaN where it is undefined."""
    columns = np.concatenate([parts, parts.sum(axis=0, keepdims=True), metric[None]])
    # Columns are centred, so that their squares lose no digits.
    columns = columns - columns.mean(axis=1, keepdims=True)
    count = weights.shape[1]
    sizes = np.bincount(prompts, minlength=count)
    sums = np.stack([np.bincount(prompts, row, count) for row in columns])
    # The count of answers is 0 where a seed has none of the prompts of a draw.
    number = np.maximum(weights @ sizes, 1e-12)
    means = weights @ sums.T / number[:, None]

    def covariance(first: int, second: int):
        products = np.bincount(prompts, columns[first] * columns[second], count)
        return weights @ products / number - means[:, first] * means[:, second]

    scale = np.sqrt(np.maximum(covariance(-2, -2) * covariance(-1, -1), 0))
    covariances = np.stack([covariance(i, -1) for i in range(len(columns) - 1)], axis=1)
    defined = (scale > 1e-12)[:, None]
    return np.divide(covariances, scale[:, None], out=np.full(covariances.shape, np.nan), where=defined)


def _finite(value: float) -> tuple[float | None]:
    return (float(value) if np.isfinite(value) else None,)

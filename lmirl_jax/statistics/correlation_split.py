"""What the parts of a sum contribute to its correlation with a metric: of a return, log-likelihood and the prompt's value."""

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
    """What a part adds to a correlation, with its 95% interval by bootstrap over prompts; None where there is too little."""

    name: str
    value: float | None
    low: float | None
    high: float | None


def correlation_split(
    tables: Sequence[AnswerTable], parts: Sequence[str], metric: str, *, seed: int = 0, draws: int = DRAWS
) -> list[Share]:
    """Splits Pearson's correlation of a sum with a metric over all answers into what each part of the sum adds.

        corr(sum of parts, metric) = sum over parts of cov(part, metric) / (sd(sum of parts) * sd(metric))

    Args:
        tables: one a seed; the mean over seeds is taken.
        parts: names of variables; the split is of their sum.
        metric: name of a variable.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Returns:
        The share of each part, in their order, and at last "total": they add up to it.
    """
    whole = np.ones((1, tables[0].prompt_count))
    prompts = np.concatenate([whole, resampling_weights(tables[0].prompt_count, seed, draws)])
    seeds = np.concatenate([
        np.full((1, len(tables)), 1 / len(tables)), resampling_weights(len(tables), seed + 1, draws)
    ])  # fmt: skip
    by_seed = [_shares(t.rows(parts), t.rows([metric])[0], t.prompts, prompts) for t in tables]
    drawn = seed_mean(np.stack(by_seed, axis=1), seeds)
    # A part that is the same in all answers adds 0, which is no lack of evidence: the metric alone may lack it.
    evidence = pooled_evidence(tables, metric)
    found = []
    for name, column in zip([*parts, "total"], drawn.T, strict=True):
        (value,) = _finite(column[0])
        found.append(Share(name, value, *interval_of(value, column[1:], evidence)))
    return found


def _shares(
    parts: Float[np.ndarray, "parts n"],
    metric: Float[np.ndarray, " n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws some"]:
    """Of each part and of their sum, under each draw of prompts."""
    columns = np.concatenate([parts, parts.sum(axis=0, keepdims=True), metric[None]])
    columns = columns - columns.mean(axis=1, keepdims=True)  # So that squares lose no digits.
    count = weights.shape[1]
    sizes = np.bincount(prompts, minlength=count)
    sums = np.stack([np.bincount(prompts, row, count) for row in columns])
    number = np.maximum(weights @ sizes, 1e-12)  # A seed need not have any of the prompts that were drawn.
    means = weights @ sums.T / number[:, None]

    def covariance(first: int, second: int):
        products = np.bincount(prompts, columns[first] * columns[second], count)
        return weights @ products / number - means[:, first] * means[:, second]

    scale = np.sqrt(np.maximum(covariance(-2, -2) * covariance(-1, -1), 0))
    own = np.stack([covariance(i, -1) for i in range(len(columns) - 1)], axis=1)
    defined = (scale > 1e-12)[:, None]
    return np.divide(own, scale[:, None], out=np.full(own.shape, np.nan), where=defined)


def _finite(value: float) -> tuple[float | None]:
    return (float(value) if np.isfinite(value) else None,)

"""Rank correlations under the bootstrap over prompts: a draw takes whole prompts, and ranks are computed again in each draw."""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

# The number of values of one variable in memory at once, so that they fit a cache.
ELEMENTS = 2**17
# The most answers for which all pairs are compared: time and memory grow with the square of their number.
MOST_PAIRED = 6000


def resampled_spearman(
    values: Float[np.ndarray, "variables n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws variables variables"]:
    """Spearman's correlations of the pooled answers under each draw, every variable with every other.

    Args:
        values: the value of each variable for each answer.
        prompts: the prompt of each answer.
        weights: the number of times that each draw takes each prompt, up to a factor.

    Returns:
        The correlations of each draw; NaN where a variable is constant in it.
    """
    orders = [_sort(row) for row in values]
    step = max(1, ELEMENTS // max(1, values.shape[1]))
    parts = []
    for begin in range(0, len(weights), step):
        shares = weights[begin : begin + step][:, prompts].astype(np.float32)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-30)
        parts.append(_correlations(np.stack([_ranks(shares, *order) for order in orders], axis=1), shares))
    return np.concatenate(parts)


def resampled_kendall(
    x: Float[np.ndarray, "measures n"],
    y: Float[np.ndarray, "metrics n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws measures metrics"]:
    """Kendall's tau-b of the pooled answers under each draw, every measure with every metric.

    Concordant and untied pairs are counted once for every pair of prompts; each draw only weights these counts.

    Args:
        x: the value of each measure for each answer.
        y: the value of each metric for each answer.
        prompts: the prompt of each answer, in ascending order.
        weights: the number of times that each draw takes each prompt, up to a factor.

    Returns:
        The correlations of each draw; NaN where a variable is constant in it.
    """
    pairs = _pair_sums(x, y, prompts, weights.shape[1])
    concordant, untied_x, untied_y = (
        np.stack([((weights @ table) * weights).sum(axis=1) for table in tables], axis=1) for tables in pairs
    )
    concordant = concordant.reshape(len(weights), len(x), len(y))
    scale = np.sqrt(untied_x[:, :, None] * untied_y[:, None, :])
    return np.divide(concordant, scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def _sort(
    values: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " unique"], Int[np.ndarray, " n"]]:
    """The order that sorts the values, where each distinct value begins in it, and the number of each answer's distinct value."""
    order = np.argsort(values, kind="stable")
    _, starts, inverse = np.unique(values[order], return_index=True, return_inverse=True)
    of_answer = np.empty(len(values), int)
    of_answer[order] = inverse
    return order, starts, of_answer


def _ranks(
    weights: Float[np.ndarray, "draws n"],
    order: Int[np.ndarray, " n"],
    starts: Int[np.ndarray, " unique"],
    of_answer: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "draws n"]:
    """Mid-ranks over the size of the draw: the share of the draw below each answer, plus half the share that ties with it."""
    same = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(same, axis=1) - same / 2
    return middle[:, of_answer]


def _correlations(
    ranks: Float[np.ndarray, "draws variables n"], weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws variables variables"]:
    # The mean of mid-ranks is a half.
    centred = (ranks - 0.5) * np.sqrt(weights)[:, None, :]
    covariance = centred @ centred.transpose(0, 2, 1)
    deviations = np.sqrt(np.einsum("dvv->dv", covariance))
    varies = deviations > 1e-4
    scale = deviations[:, :, None] * deviations[:, None, :]
    both: Bool[np.ndarray, "draws variables variables"] = varies[:, :, None] & varies[:, None, :]
    return np.divide(covariance, scale, out=np.full(scale.shape, np.nan, scale.dtype), where=both)


def _pair_sums(
    x: Float[np.ndarray, "measures n"],
    y: Float[np.ndarray, "metrics n"],
    prompts: Int[np.ndarray, " n"],
    prompt_count: int,
) -> tuple[
    Num[np.ndarray, "pairs prompts prompts"],
    Num[np.ndarray, "measures prompts prompts"],
    Num[np.ndarray, "metrics prompts prompts"],
]:
    """For each two prompts, over all pairs of their answers: sums of sign products of measures and metrics, and untied pairs."""
    present, starts = np.unique(prompts, return_index=True)
    ends = np.append(starts[1:], len(prompts))
    tables = [np.zeros((count, prompt_count, prompt_count)) for count in (len(x) * len(y), len(x), len(y))]
    for prompt, begin, end in zip(present, starts, ends, strict=True):
        first, second = (
            np.sign(values[:, begin:end, None] - values[:, None, :]).astype(np.int8) for values in (x, y)
        )
        products = (
            (first[:, None] * second[None]).reshape(-1, end - begin, len(prompts)),
            np.abs(first),
            np.abs(second),
        )
        for table, product in zip(tables, products, strict=True):
            sums = product.sum(axis=1, dtype=np.int32)
            table[:, prompt, present] = np.add.reduceat(sums, starts, axis=1)
    return tables[0], tables[1], tables[2]

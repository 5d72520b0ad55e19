"""Rank correlations under the bootstrap over prompts: the answers of a prompt are drawn together, ranks are taken anew."""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

ELEMENTS = 2**17  # Numbers of one variable that are looked at at once: they fit a cache.
MOST_PAIRED = 6000  # Answers of which every pair is compared: time and memory grow with the square.


def resampled_spearman(
    values: Float[np.ndarray, "variables n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws variables variables"]:
    """Spearman's correlations of the pooled answers under each draw, every variable with every other.

    Args:
        values: of each variable, one an answer.
        prompts: of each answer.
        weights: how often each prompt is drawn, up to a factor.

    Returns:
        The correlations of each draw; NaN where a variable is constant in it.
    """
    sorted_values = [_sorted(row) for row in values]
    step = max(1, ELEMENTS // max(1, values.shape[1]))
    parts = []
    for begin in range(0, len(weights), step):
        drawn = weights[begin : begin + step][:, prompts].astype(np.float32)
        drawn /= np.maximum(drawn.sum(axis=1, keepdims=True), 1e-30)
        parts.append(_correlations(np.stack([_ranks(drawn, *own) for own in sorted_values], axis=1), drawn))
    return np.concatenate(parts)


def resampled_kendall(
    x: Float[np.ndarray, "measures n"],
    y: Float[np.ndarray, "metrics n"],
    prompts: Int[np.ndarray, " n"],
    weights: Float[np.ndarray, "draws prompts"],
) -> Float[np.ndarray, "draws measures metrics"]:
    """Kendall's tau-b of the pooled answers under each draw, every measure with every metric.

    Numbers of concordant and of untied pairs are counted once for every pair of prompts, and only weighted in each draw.

    Args:
        x: of each measure, one an answer.
        y: of each metric, one an answer.
        prompts: of each answer, never falling.
        weights: how often each prompt is drawn, up to a factor.

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


def _sorted(
    values: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " unique"], Int[np.ndarray, " n"]]:
    """The order of the values, where in it each different value begins, and which of these each answer has."""
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
    """The share of the draw below each answer and half of that which ties with it: mid-ranks, over the number drawn."""
    same = np.add.reduceat(weights[:, order], starts, axis=1)
    middle = np.cumsum(same, axis=1) - same / 2
    return middle[:, of_answer]


def _correlations(
    ranks: Float[np.ndarray, "draws variables n"], weights: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws variables variables"]:
    centred = (ranks - 0.5) * np.sqrt(weights)[:, None, :]  # The mean of mid-ranks is a half.
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
    """Over the answers of each two prompts: the sum of sign products of each measure with each metric, and untied pairs."""
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

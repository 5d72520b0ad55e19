"""Permutation tests of correlations over answers to prompts: metrics are exchanged within a prompt, or between prompts too."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable, pooled_ranks, ranks_within

DRAWS = 2000
# The number of permuted places in memory at once, so that they fit a cache.
ELEMENTS = 2**17


def permutation_tests(
    tables: Sequence[AnswerTable],
    measures: Sequence[str],
    metrics: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, list[list[float]]]:
    """Two-sided permutation tests of Spearman's correlation of every measure with every metric.

    Two null hypotheses. Within prompt: among the answers to a prompt the metric does not depend on the measure; metrics change
    places among the answers to each prompt. Pooled: nor does it between prompts; prompts with the same number of answers
    change places too, each with all its metrics.

    Args:
        tables: a table for each seed; a prompt has the same number in all of them.
        measures: names of variables in the tables.
        metrics: names of variables in the tables.
        seed: the seed of the permutations.
        draws: the number of permutations.

    Returns:
        P-values by scope, measure and metric.
    """
    if not measures or not metrics:
        return {WITHIN: [], POOLED: []}
    sides = {
        WITHIN: [
            [ranks_within(t.rows(names), t.prompts, t.prompt_count) for names in (measures, metrics)]
            for t in tables
        ],
        POOLED: [[pooled_ranks(t.rows(names)) for names in (measures, metrics)] for t in tables],
    }
    samples: dict[str, list[Float[np.ndarray, "some measures metrics"]]] = {WITHIN: [], POOLED: []}
    for within, between in _permutations(np.stack([t.counts for t in tables]), seed=seed, draws=draws):
        for scope, places in ((WITHIN, within), (POOLED, between)):
            by_seed = [
                x @ y[:, place].transpose(1, 2, 0) for (x, y), place in zip(sides[scope], places, strict=True)
            ]
            samples[scope].append(_sum(by_seed))
    return {
        scope: _p_values(_sum([x @ y.T for x, y in sides[scope]]), np.concatenate(parts))
        for scope, parts in samples.items()
    }


def p_value(statistic: float, sample: Float[np.ndarray, " draws"]) -> float:
    """The two-sided p-value: the share of draws that are at least as far from 0 as the statistic.

    The data itself counts as one draw, so that the p-value is never 0.
    """
    extreme = np.sum(np.abs(sample) >= abs(statistic) - 1e-7)
    return float((1 + extreme) / (1 + len(sample)))


def _p_values(
    statistics: Float[np.ndarray, "measures metrics"], sample: Float[np.ndarray, "draws measures metrics"]
) -> list[list[float]]:
    return [
        [p_value(float(statistics[i, j]), sample[:, i, j]) for j in range(statistics.shape[1])]
        for i in range(statistics.shape[0])
    ]


def _sum(by_seed: Sequence[Float[np.ndarray, "*shape"]]) -> Float[np.ndarray, "*shape"]:
    return functools.reduce(np.add, by_seed)


def _permutations(
    counts: Int[np.ndarray, "seeds prompts"], *, seed: int, draws: int
) -> Iterator[tuple[list[Int[np.ndarray, "some n"]], list[Int[np.ndarray, "some n"]]]]:
    """Draws permutations, a few at a time: the answer from which each answer takes its metric.

    Answers of a prompt are exchanged freely. Prompts change places as a whole, with all their answers, and only with prompts
    that have as many answers in every seed: exchanging answers freely between prompts would take the answers of one prompt,
    which are alike, for independent ones, and make p-values too small. The seeds of a run permute alike, for they may
    have scored the same answers.

    Yields:
        The places of each seed where only answers within a prompt are exchanged, and those where prompts are exchanged too.
    """
    generator = np.random.default_rng(seed)
    most = counts.max(axis=0)
    step = max(1, ELEMENTS // max(1, int(most.sum())))
    for begin in range(0, draws, step):
        some = min(step, draws - begin)
        # The j-th answer to a prompt has the same key in every seed.
        keys = generator.random((some, int(most.sum())))
        sources = _prompt_sources(counts, generator, some)
        within, between = zip(
            *(_places(seed_counts, most, keys, sources) for seed_counts in counts), strict=True
        )
        yield list(within), list(between)


def _exchangeable(counts: Int[np.ndarray, "seeds prompts"]) -> Sequence[Int[np.ndarray, " some"]]:
    """The prompts that may change places with one another: those with the same number of answers in every seed."""
    _, kinds = np.unique(counts, axis=1, return_inverse=True)
    return [np.flatnonzero(kinds == kind) for kind in range(int(kinds.max(initial=-1)) + 1)]


def _prompt_sources(
    counts: Int[np.ndarray, "seeds prompts"], generator: np.random.Generator, some: int
) -> Int[np.ndarray, "some prompts"]:
    sources = np.tile(np.arange(counts.shape[1]), (some, 1))
    for alike in _exchangeable(counts):
        sources[:, alike] = alike[np.argsort(generator.random((some, len(alike))), axis=1)]
    return sources


def _places(
    counts: Int[np.ndarray, " prompts"],
    most: Int[np.ndarray, " prompts"],
    keys: Float[np.ndarray, "some keys"],
    sources: Int[np.ndarray, "some prompts"],
) -> tuple[Int[np.ndarray, "some n"], Int[np.ndarray, "some n"]]:
    """The place from which each answer takes its metric: within its own prompt, and within the prompt exchanged with it."""
    prompts = np.repeat(np.arange(len(counts)), counts)
    starts, first_keys = (np.cumsum(sizes) - sizes for sizes in (counts, most))
    local = np.arange(len(prompts)) - starts[prompts]
    # Keys lie between 0 and 1, so that each prompt's answers are sorted among themselves.
    within = np.argsort(prompts + keys[:, first_keys[prompts] + local], axis=1)
    return within, starts[sources][:, prompts] + within - starts[prompts]

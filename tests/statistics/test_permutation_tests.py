import numpy as np
import pytest

from lmirl_jax.statistics.permutation_tests import p_value, permutation_tests
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable


def table(x, y, prompts, count=None):
    values = np.array([x, y], float)
    prompts = np.array(prompts)
    return AnswerTable(("x", "y"), values, prompts, count or int(prompts.max()) + 1)


def p_of(*tables, draws=4000, seed=0):
    found = permutation_tests(tables, ["x"], ["y"], draws=draws, seed=seed)
    return found[POOLED][0][0], found[WITHIN][0][0]


def test_three_answers_in_order_by_enumeration():
    # Of the 6 orders of 1 2 3 two correlate as far from 0: 1 2 3 itself and 3 2 1.
    pooled, within = p_of(table([1, 2, 3], [1, 2, 3], [0, 0, 0]))
    assert pooled == pytest.approx(1 / 3, abs=0.03) and within == pytest.approx(1 / 3, abs=0.03)


def test_prompts_change_places_as_a_whole_by_enumeration():
    # Three prompts, five like answers each: 6 orders of the prompts, two as far from 0. Free exchange of the 15 answers would
    # call this p < 0.001.
    values = np.repeat([1, 2, 3], 5)
    pooled, within = p_of(table(values, values, values - 1))
    assert pooled == pytest.approx(1 / 3, abs=0.03)
    assert within == 1.0  # Nothing varies within a prompt.


def test_two_prompts_within_by_enumeration():
    # Both in order: each keeps or turns its order, 4 cases, of which two (both kept, both turned) are as far from 0.
    _, within = p_of(table([1, 2, 5, 6], [1, 2, 5, 6], [0, 0, 1, 1]))
    assert within == pytest.approx(1 / 2, abs=0.03)


def test_prompts_with_other_numbers_of_answers_stay_where_they_are():
    pooled, _ = p_of(table([1, 2, 2, 3, 3, 3], [1, 2, 2, 3, 3, 3], [0, 1, 1, 2, 2, 2]))
    assert pooled == 1.0


def test_the_smallest_p_counts_the_data_itself():
    assert p_value(1.0, np.zeros(999)) == pytest.approx(1 / 1000)
    assert p_value(0.0, np.ones(9)) == 1.0


def test_seeds_that_scored_the_same_answers_are_no_further_evidence():
    generator = np.random.default_rng(1)
    one = table(generator.normal(size=40), generator.normal(size=40), np.repeat(np.arange(10), 4))
    assert p_of(one, one, one, draws=500) == p_of(one, draws=500)


def test_under_the_null_clustered_answers_are_rarely_called_related():
    found = []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        x, y = (np.repeat(generator.normal(size=12), 6) + 0.3 * generator.normal(size=72) for _ in range(2))
        found.append(p_of(table(x, y, np.repeat(np.arange(12), 6)), draws=199, seed=seed))
    pooled, within = (np.array(found) <= 0.05).mean(axis=0)
    assert pooled < 0.11 and within < 0.11  # Answers taken for independent would give about 0.4 pooled.


def test_nothing_to_test():
    assert permutation_tests([table([1, 2], [1, 2], [0, 1])], ["x"], []) == {WITHIN: [], POOLED: []}


def test_seeds_with_other_numbers_of_answers_permute_separately():
    first = table([1, 2, 3, 9, 9], [1, 2, 3, 0, 1], [0, 0, 0, 1, 1])
    second = table([1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 1, 1])
    pooled, within = p_of(first, second)
    assert 0 < within <= 1 and 0 < pooled <= 1

"""The AUC: pairs by hand, scipy's Mann-Whitney U, and an interval that covers."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from lmirl_jax.statistics.auc import auc, auc_interval


def test_pairs_by_hand():
    # Of the six pairs three are above, one is equal.
    assert auc(np.array([1.0, 3.0]), np.array([0.0, 1.0, 5.0])) == pytest.approx(3.5 / 6)
    assert auc(np.array([2.0]), np.array([2.0])) == 0.5


@pytest.mark.parametrize("decimals", [0, 3])
def test_equals_mann_whitney(decimals):
    random = np.random.default_rng(0)
    high, low = random.normal(0.5, 1, 40).round(decimals), random.normal(0, 1, 60).round(decimals)
    assert auc(high, low) == pytest.approx(mannwhitneyu(high, low).statistic / 2400, abs=1e-12)


def test_interval_covers_with_prompts_of_several_values():
    # Values of a prompt share its mean, so that they are no independent cases. P(N(1, 1.25) > N(0, 1.25)) within sd sqrt(2.5).
    random, covered = np.random.default_rng(1), 0
    truth = 0.7364
    for trial in range(100):
        shift = random.normal(0, 0.5, 40)
        prompts = np.repeat(np.arange(40), 3)
        high, low = (mean + shift[prompts] + random.normal(0, 1, 120) for mean in (1.0, 0.0))
        low_end, high_end = auc_interval(high, low, prompts, prompts, seed=trial)
        covered += low_end <= truth <= high_end
        assert low_end < auc(high, low) < high_end
    assert covered >= 90


def test_few_prompts_have_no_interval():
    ones, prompts = np.ones(9), np.arange(9)
    assert auc_interval(ones, ones, prompts, prompts) == (None, None)


def test_a_perfect_score_of_few_prompts_is_not_certain():
    prompts = np.arange(12)
    low, high = auc_interval(np.ones(12), np.zeros(12), prompts, prompts)
    # Wilson's for 12 of 12.
    assert high == 1.0 and low == pytest.approx(12 / (12 + 1.959964**2), abs=1e-6)

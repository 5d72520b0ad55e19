import numpy as np
import pytest
from scipy import stats

from lmirl_jax.statistics.rank_correlation import (
    AnswerTable,
    kendall,
    kendall_by_prompt,
    ranks_within,
    spearman,
    spearman_by_prompt,
)
from lmirl_jax.statistics.resampled_ranks import resampled_kendall, resampled_spearman
from lmirl_jax.types import UserError

X = np.array([1.0, 2.0, 3.0, 4.0])
PROMPTS = np.array([0, 0, 0, 0, 1, 1, 1, 3, 3])


@pytest.fixture
def clustered():
    """Variables of 24 answers, with ties, and their prompts, of which the last but one has no answer."""
    generator = np.random.default_rng(0)
    prompts = np.repeat([0, 1, 2, 3, 5], [6, 5, 1, 4, 8])
    return (
        np.round(generator.normal(size=(2, 24)), 1),
        generator.integers(0, 3, size=(2, 24)).astype(float),
        prompts,
    )


def test_by_hand():
    swapped = np.array([1.0, 3.0, 2.0, 4.0])
    assert spearman(X, swapped) == pytest.approx(1 - 6 * 2 / (4 * 15))  # 0.8
    assert kendall(X, swapped) == pytest.approx((5 - 1) / 6)


def test_ties_by_hand():
    halves = np.array([0.0, 0.0, 1.0, 1.0])  # Four pairs in order, two tied.
    assert kendall(halves, X) == pytest.approx(4 / np.sqrt((6 - 2) * 6))
    assert spearman(halves, X) == pytest.approx(
        2 / np.sqrt(5)
    )  # Ranks 1.5 1.5 3.5 3.5 with 1 2 3 4: 4 / sqrt(4 * 5).


def test_undefined_is_none():
    assert spearman(X, np.ones(4)) is None and kendall(np.ones(4), X) is None
    assert spearman(X[:1], X[:1]) is None and kendall(X[:0], X[:0]) is None


def test_ranks_within_prompts_are_standardised_in_each():
    values = np.array([[1.0, 2, 3, 4, 5, 5, 5, 9, 7]])
    ranks = ranks_within(values, PROMPTS, 4)[0]
    assert ranks[:4] == pytest.approx(np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(5))
    assert ranks[4:7].tolist() == [0, 0, 0]
    assert ranks[7:] == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])


def test_correlations_within_each_prompt(clustered):
    x, y, prompts = clustered
    for ours, theirs in ((spearman_by_prompt, stats.spearmanr), (kendall_by_prompt, stats.kendalltau)):
        found = ours(x, y, prompts, 6)
        assert np.isnan(found[:, :, [2, 4]]).all()  # One answer, and none.
        for i, j, prompt in np.ndindex(2, 2, 6):
            own = prompts == prompt
            if own.sum() > 1 and np.ptp(y[j, own]):
                assert found[i, j, prompt] == pytest.approx(theirs(x[i, own], y[j, own]).statistic)


def test_resampling_takes_prompts_as_often_as_they_are_drawn(clustered):
    x, y, prompts = clustered
    weights = np.array([[1.0, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 0]]) / 6
    rho, tau = (
        resampled_spearman(np.concatenate([x, y]), prompts, weights),
        resampled_kendall(x, y, prompts, weights),
    )
    for draw, i, j in np.ndindex(2, 2, 2):
        times = np.round(6 * weights[draw]).astype(int)[prompts]
        first, second = np.repeat(x[i], times), np.repeat(y[j], times)
        assert rho[draw, i, 2 + j] == pytest.approx(stats.spearmanr(first, second).statistic, abs=2e-6)
        assert tau[draw, i, j] == pytest.approx(stats.kendalltau(first, second).statistic)


def test_a_draw_in_which_a_variable_is_constant_has_no_correlation():
    values = np.array([[1.0, 2, 3, 4], [0, 0, 0, 1]])
    weights = np.array([[1.0, 0.0], [0.5, 0.5]])
    prompts = np.array([0, 0, 1, 1])
    rho = resampled_spearman(values, prompts, weights)[:, 0, 1]
    tau = resampled_kendall(values[:1], values[1:], prompts, weights)[:, 0, 0]
    assert np.isnan([rho[0], tau[0]]).all() and np.isfinite([rho[1], tau[1]]).all()


def test_tables_say_what_is_wrong():
    with pytest.raises(UserError, match="bleu of an answer is not finite"):
        AnswerTable(("bleu",), np.array([[np.nan]]), np.array([0]), 1)
    with pytest.raises(ValueError, match="order of their prompts"):
        AnswerTable(("bleu",), np.array([[1.0, 2.0]]), np.array([1, 0]), 2)

import numpy as np
import pytest

from lmirl_jax.statistics import bootstrap
from lmirl_jax.statistics.evidence import Evidence


def test_too_little_has_no_interval():
    """What does not vary, or only in 7 prompts, says nothing of noise; nor do 9 prompts."""
    assert bootstrap.bootstrap_interval([0.25] * 20) == (None, None)
    assert bootstrap.bootstrap_interval([5.0] * 393 + [6.0] * 7) == (None, None)
    assert bootstrap.bootstrap_interval(np.arange(9.0)) == (None, None)
    low, high = bootstrap.bootstrap_interval([5.0] * 392 + [6.0] * 8)
    assert 5 < low < 5.02 < high


def test_the_ends_are_widened_for_few_prompts():
    """By hand: Student's 97.5% at 9 degrees is 2.26216, times sqrt(10 / 9) 2.38452, beyond which a normal has .00855."""
    assert bootstrap.widened_tail(0.95, 10) == pytest.approx(0.00855, abs=5e-6)
    assert bootstrap.widened_tail(0.95, 10**6) == pytest.approx(0.025, abs=1e-6)


def test_undefined_draws_count_as_beyond_both_ends():
    """Of 2000 draws with 50 events, 45 lie below the lower end; one more may be undefined than may lie there, or not."""
    sample = np.arange(2000.0)
    tail = bootstrap.widened_tail(0.95, 50)
    beyond = int(tail * 1999)
    assert bootstrap.percentile_interval(sample, 0.95, 50) == (beyond, 1999 - beyond)
    enough = Evidence(50, 50, 50)
    for undefined, given in ((beyond - 1, True), (beyond + 2, False)):
        some = np.where(np.arange(2000) % 1000 < undefined / 2, np.nan, sample)
        low, high = bootstrap.interval_of(1000.0, some, enough)
        assert (low is not None) == given
        if low is not None and high is not None:
            assert low < 50 and high > 1949  # Wider than of the defined draws alone.


def test_an_interval_that_does_not_hold_its_value_is_not_given():
    enough = Evidence(50, 50, 50)
    assert bootstrap.interval_of(-1.0, np.arange(2000.0), enough) == (None, None)
    assert bootstrap.interval_of(None, np.arange(2000.0), enough) == (None, None)


def test_interval_is_that_of_the_normal_for_many_prompts():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_equal_seeds_give_equal_intervals():
    values = np.random.default_rng(0).random(30)
    assert bootstrap.bootstrap_interval(values, 3) == bootstrap.bootstrap_interval(values, 3)
    assert bootstrap.bootstrap_interval(values, 3) != bootstrap.bootstrap_interval(values, 4)


def test_seeds_that_differ_widen_the_interval():
    prompts = np.random.default_rng(0).random(200)
    low, high = bootstrap.bootstrap_interval(np.stack([prompts - 0.3, prompts + 0.3]))
    assert low == pytest.approx(prompts.mean() - 0.3, abs=0.1)
    assert high == pytest.approx(prompts.mean() + 0.3, abs=0.1)


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = bootstrap.bootstrap_interval(rng.normal(size=200))
        hits += low <= 0 <= high
    assert 0.91 < hits / 300 < 0.98


def test_weights_are_shares():
    weights = bootstrap.resampling_weights(7, 0, 50)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    np.testing.assert_allclose(weights * 7, np.round(weights * 7), atol=1e-12)


def test_resampled_means_by_hand():
    values = np.array([[[1.0, 3.0], [5.0, 7.0]]])  # One point, two seeds, two prompts.
    prompts = np.array([[0.5, 0.5], [1.0, 0.0]])
    seeds = np.array([[0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(bootstrap.resampled_means(values, prompts, seeds), [[4.0], [5.0]])

import numpy as np
import pytest

from lmirl_jax.evaluation import bootstrap


def test_interval_of_a_constant_is_a_point():
    assert bootstrap.bootstrap_interval([0.25] * 20) == pytest.approx((0.25, 0.25))


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

import numpy as np
import pytest

from lmirl_jax.statistics.bootstrap import bootstrap_interval
from lmirl_jax.statistics.proportions import effective_size, mean_interval, share_interval

Z = 1.959964


def test_by_hand():
    # Middle 1/2; half its width z / (1 + z^2/10) * sqrt(1/40 + z^2/400) = 1.41601 * 0.186021.
    assert share_interval([True, False] * 5) == pytest.approx((0.236593, 0.763407), abs=1e-5)


@pytest.mark.parametrize("count", [1, 10, 240])
def test_where_all_are_alike_one_end_is_theirs(count):
    # p solves 1 - p = z sqrt(p (1 - p) / n), so it is n / (n + z^2).
    end = count / (count + Z**2)
    assert share_interval([True] * count) == pytest.approx((end, 1))
    assert share_interval([False] * count) == pytest.approx((0, 1 - end))


def test_a_larger_coverage_is_wider():
    cases = [True, True, False]
    low, high = share_interval(cases)
    wide_low, wide_high = share_interval(cases, 0.99)
    assert wide_low < low < 2 / 3 < high < wide_high


def test_right_or_wrong_prompt_by_prompt_is_wilson():
    values = [1.0] * 19 + [0.0]
    assert mean_interval(values) == pytest.approx(share_interval([value == 1 for value in values]))
    assert mean_interval([1.0] * 20) == (
        pytest.approx(0.838875, abs=1e-6),
        1.0,
    )  # As R's binom.wilson has it.
    assert mean_interval([0.0] * 20) == (0.0, pytest.approx(0.161125, abs=1e-6))


def test_samples_of_a_prompt_that_are_all_alike_are_one_case():
    """Four equal samples a prompt are 0 or 1 a prompt; four independent ones are worth nearly four cases."""
    generator = np.random.default_rng(0)
    alike = effective_size(np.repeat([[0.0, 1.0]], 50, axis=0).reshape(1, -1))
    assert alike == 100
    assert 300 < effective_size(generator.binomial(4, 0.5, (1, 400)) / 4) / 4 < 450


def test_seeds_that_differ_are_worth_less():
    one = np.random.default_rng(0).binomial(4, 0.5, (1, 100)) / 4
    same, other = (
        np.concatenate([one, one]),
        np.concatenate([np.clip(one + 0.2, 0, 1), np.clip(one - 0.2, 0, 1)]),
    )
    assert effective_size(same) == pytest.approx(effective_size(one))
    low, high = mean_interval(other)
    assert low < 0.4 < 0.6 < high


def test_what_does_not_vary_between_0_and_1_has_no_interval():
    assert mean_interval([0.25] * 20) == (None, None)


def test_what_is_no_share_has_a_bootstrap():
    lengths = np.random.default_rng(0).poisson(9, 50).astype(float)
    assert mean_interval(lengths) == bootstrap_interval(lengths)

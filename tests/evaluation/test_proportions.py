import pytest

from lmirl_jax.evaluation.proportions import share_interval

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

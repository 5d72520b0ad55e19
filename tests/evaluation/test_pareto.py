"""Hulls and bands on points whose corners can be seen by eye."""

import numpy as np
import pytest

from lmirl_jax.evaluation import front, pareto


def test_front_by_hand():
    quality = np.array([0.9, 0.8, 0.5, 0.2])
    diversity = np.array([1.0, 2.0, 4.0, 3.0])
    levels = np.array([0.1, 0.5, 0.65, 0.8, 0.85, 0.9, 0.95])
    # Below 0.5 the point at 0.5 serves, which is better and more diverse; beyond the best point its own diversity.
    np.testing.assert_allclose(pareto.front_at(quality, diversity, levels), [4, 4, 3, 2, 1.5, 1, 1])


def test_front_mixes_two_temperatures_over_a_dent():
    quality = np.array([0.9, 0.7, 0.5])
    diversity = np.array([1.0, 1.2, 5.0])
    np.testing.assert_allclose(pareto.front_at(quality, diversity, np.array([0.7])), [3.0])


def test_front_of_equal_qualities_takes_the_more_diverse():
    quality = np.array([0.5, 0.5, 0.9, 0.9])
    diversity = np.array([1.0, 3.0, 1.0, 2.0])
    np.testing.assert_allclose(pareto.front_at(quality, diversity, np.array([0.5, 0.7, 0.9])), [3, 2.5, 2])


def test_hull_corners_by_hand():
    quality = np.array([0.9, 0.8, 0.7, 0.5, 0.4, 0.9])
    diversity = np.array([1.0, 1.9, 2.2, 5.0, 4.0, 0.5])
    # 0.8 and 0.7 lie below the line from (0.9, 1) to (0.5, 5), the last two are beaten outright.
    assert pareto.hull_corners(quality, diversity) == [0, 3]
    assert pareto.hull_corners(quality, np.array([1.0, 3.0, 3.5, 5.0, 4.0, 0.5])) == [0, 1, 3]
    assert pareto.hull_corners(np.array([0.5, 0.5]), np.array([1.0, 1.0])) == [0]


def test_corners_are_where_the_front_bends():
    rng = np.random.default_rng(0)
    quality, diversity = rng.random((2, 12))
    corners = pareto.hull_corners(quality, diversity)
    np.testing.assert_allclose(pareto.front_at(quality, diversity, quality[corners]), diversity[corners])
    ends = quality[corners]
    np.testing.assert_allclose(
        pareto.front_at(quality, diversity, (ends[1:] + ends[:-1]) / 2),
        (diversity[corners][1:] + diversity[corners][:-1]) / 2,
    )


def test_the_hull_over_all_runs_names_run_and_temperature():
    points = {"MLE": [(0.5, 0.9, 90.0), (1.0, 0.5, 80.0)], "IQLearn": [(0.5, 0.8, 70.0), (1.0, 0.4, 60.0)]}
    cells = [
        front.Cell(run, 0, t, {"accuracy": a, "self_bleu": s}) for run in points for t, a, s in points[run]
    ]
    hull = pareto.pareto_hull(cells, quality="accuracy", diversity="self_bleu")  # Lower is more diverse.
    assert [(c.run, c.temperature) for c in hull] == [("MLE", 0.5), ("IQLearn", 0.5), ("IQLearn", 1.0)]
    assert (hull[1].quality, hull[1].diversity) == (0.8, 70.0)


def noisy(metric):
    rng = np.random.default_rng(0)
    return front.curves(
        [
            front.Cell("a", 0, t, {}, {"accuracy": (q + rng.normal(0, 0.1, 80)).tolist(), metric: values})
            for t, q, d in [(0.5, 0.9, 30.0), (1.0, 0.6, 50.0), (1.5, 0.3, 40.0)]
            for values in [(d + rng.normal(0, 1, 80)).tolist()]
        ]
    )[0]


@pytest.mark.parametrize("metric", ["distinct_valid", "self_bleu"])
def test_the_band_holds_the_curve(metric):
    curve = noisy(metric)
    band = pareto.confidence_band(curve, quality="accuracy", diversity=metric)
    sign = front.describe(metric).sign
    own = sign * pareto.front_at(curve.means["accuracy"], sign * curve.means[metric], band.levels)
    assert (band.low < own).all() and (own < band.high).all()
    assert band.levels[-1] == pytest.approx(curve.means["accuracy"].max())


def test_no_values_per_prompt_no_band():
    [curve] = front.curves([front.Cell("a", 0, 1.0, {"accuracy": 0.5, "self_bleu": 3.0})])
    assert pareto.confidence_band(curve, quality="accuracy", diversity="self_bleu") is None

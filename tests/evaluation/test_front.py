import dataclasses

import numpy as np
import pytest

from lmirl_jax.evaluation import front
from lmirl_jax.types import UserError


def cell(run="MLE", seed=0, temperature=1.0, accuracy=(1.0, 0.0), distinct=(3.0, 2.0), **metrics):
    per_prompt = {"accuracy": accuracy, "distinct_valid": distinct}
    return front.Cell(run, seed, temperature, metrics, per_prompt)


def test_curves_average_over_seeds_and_sort_temperatures():
    cells = [
        cell(seed=1, temperature=1.0, accuracy=[0.5, 0.5], distinct_2=0.4),
        cell(seed=0, temperature=1.0, distinct_2=0.2),
        cell(seed=0, temperature=0.5, accuracy=[1.0, 1.0], distinct_2=0.1),
        cell(seed=1, temperature=0.5, accuracy=[1.0, 0.0], distinct_2=0.1),
        cell("IQLearn"),
    ]
    mle, iqlearn = front.curves(cells)
    assert (mle.run, iqlearn.run) == ("MLE", "IQLearn")
    assert mle.temperatures == (0.5, 1.0) and mle.seeds == (0, 1)
    np.testing.assert_allclose(mle.means["accuracy"], [0.75, 0.5])
    np.testing.assert_allclose(mle.means["distinct_2"], [0.1, 0.3])
    assert mle.values["accuracy"].shape == (2, 2, 2) and "distinct_2" not in mle.values
    np.testing.assert_allclose(iqlearn.means["distinct_valid"], [2.5])


def test_each_top_p_is_a_separate_curve_and_labelled_where_there_are_several():
    cells = [dataclasses.replace(cell(run), top_p=p) for p in (0.9, 1.0) for run in ("MLE", "IQLearn")]
    found = [(curve.run, curve.top_p, curve.label) for curve in front.curves(cells)]
    assert found == [
        ("MLE", 1.0, "MLE (top-p 1)"),
        ("MLE", 0.9, "MLE (top-p 0.9)"),
        ("IQLearn", 1.0, "IQLearn (top-p 1)"),
        ("IQLearn", 0.9, "IQLearn (top-p 0.9)"),
    ]
    assert [curve.label for curve in front.curves(cells[:2])] == ["MLE", "IQLearn"]


def test_interval_needs_values_per_prompt():
    [curve] = front.curves([cell(accuracy=[1.0] * 9 + [0.0], distinct=[1.0] * 10, distinct_2=0.3)])
    assert curve.interval("distinct_2", 0) == front.Interval(0.3)
    accuracy = curve.interval("accuracy", 0)
    assert accuracy.mean == pytest.approx(0.9) and accuracy.low < 0.9 < accuracy.high


@pytest.mark.parametrize(
    "cells, message",
    [
        ([], "no cells"),
        ([cell(), cell()], "'MLE' has temperature 1, seed 0 twice"),
        ([cell(), cell(seed=1), cell(temperature=0.5)], "lacks seed 1 at temperature 0.5"),
        ([cell(), cell("b", accuracy=[1.0], distinct=[1.0])], "values for 1, 2 prompts"),
        ([cell(accuracy=[], distinct=[])], "values for 0 prompts"),
    ],
)
def test_cells_that_make_no_sweep(cells, message):
    with pytest.raises(UserError, match=message) as error:
        front.curves(cells)
    assert "\n" not in str(error.value)


def test_table_without_intervals_is_aligned():
    metrics = [(0.2, {"accuracy": 0.9, "self_bleu": 88.26}), (1.0, {"accuracy": 0.5, "self_bleu": 8.0})]
    cells = [front.Cell(run, 0, t, m) for run in ("MLE", "IQLearn") for t, m in metrics]
    assert front.table(cells, ["accuracy", "self_bleu"]).splitlines() == [
        "    |         MLE         |       IQLearn",
        "  T | accuracy  Self-BLEU | accuracy  Self-BLEU",
        "----+---------------------+--------------------",
        "0.2 |    0.900       88.3 |    0.900       88.3",
        "1.0 |    0.500        8.0 |    0.500        8.0",
    ]


def test_table_shows_intervals_and_what_they_are():
    cells = [cell(run, temperature=t) for run in ("MLE", "IQLearn") for t in (0.2, 1.0)]
    lines = front.table(cells).splitlines()
    assert max(map(len, lines)) <= 100
    assert "±" in lines[3] and "distinct: valid distinct answers per prompt" in lines
    assert lines[-2].startswith("95% intervals over 2 prompts: ± half of one, or both ends where it leans")
    more = [*cells, *(cell("MLE", 1, t) for t in (0.2, 1.0))]
    assert "over 2 prompts and seeds (1 or 2 a run)" in front.table(more)


def test_an_asymmetric_interval_has_both_ends():
    [curve] = front.curves([cell(accuracy=[1.0] * 20, distinct=list(range(20)))])
    assert front.entry(curve, "accuracy", 1.0) == "1.000 [0.839, 1.000]"
    assert front.entry(curve, "distinct_valid", 1.0).startswith("9.50 ±2.")
    [alike] = front.curves([cell(accuracy=[0.0] * 20, distinct=[3.0] * 20)])
    assert front.entry(alike, "distinct_valid", 1.0) == "3.00"  # No noise shows: no interval.


def test_table_puts_runs_that_do_not_fit_below():
    cells = [cell(f"a run with a long name {i}") for i in range(5)]
    text = front.table(cells, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"name {i}" in text for i in range(5))


def test_table_leaves_out_what_was_not_measured():
    lines = front.table([cell("a", temperature=0.5), cell("b", temperature=1.0)], ["accuracy"]).splitlines()
    assert lines[3].startswith("0.5 |") and lines[3].endswith(" -")
    assert lines[4].startswith("1.0 |") and lines[4].split("|")[1].strip() == "-"


def test_temperature_texts():
    assert front.temperature_texts([0.25, 1, 1.5]) == ["0.25", "1.00", "1.50"]
    assert front.temperature_texts([1, 2]) == ["1", "2"]


def test_an_unknown_metric_keeps_its_name():
    assert front.describe("rouge").title == "rouge" and front.describe("rouge").sign == 1

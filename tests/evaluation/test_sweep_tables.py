"""The tidy table and the findings, counted by hand."""

import json

from etils import epath

from lmirl_jax.evaluation import sweep_tables
from lmirl_jax.evaluation.front import Cell


def test_csv_by_hand(tmp_path):
    cells = [
        Cell("MLE", 0, 0.5, {"accuracy": 0.9, "bleu": 30.5}, {"accuracy": [1.0, 1.0]}, 0.9),
        Cell("IQ, Learn", 1, 1, {"bleu": 29.0}, {"accuracy": [0.5, 0.5, 0.5]}),
    ]
    intervals = [{"accuracy": [1.0, 1.0]}, {"accuracy": [0.5, 0.5], "bleu": [27.5, 30.25]}]
    rows = sweep_tables.tidy_rows(cells, ["/run/a/10", "/run/b/20"], intervals)
    sweep_tables.write_csv(epath.Path(tmp_path / "sweep.csv"), rows)
    assert (tmp_path / "sweep.csv").read_text().splitlines() == [
        "run,seed,checkpoint,temperature,top_p,metric,value,low,high,prompts",
        "MLE,0,/run/a/10,0.5,0.9,accuracy,1.0,1.0,1.0,2",  # Values per prompt stand in for the mean.
        "MLE,0,/run/a/10,0.5,0.9,bleu,30.5,,,2",
        '"IQ, Learn",1,/run/b/20,1,1.0,bleu,29.0,27.5,30.25,3',
        '"IQ, Learn",1,/run/b/20,1,1.0,accuracy,0.5,0.5,0.5,3',
    ]


def test_findings_are_json_and_leave_out_what_has_no_noise(tmp_path):
    """Two parallel lines 2 apart over accuracies of 0.4 to 0.8."""
    cells = [
        Cell(run, 0, t, {"bleu": d}, {"accuracy": [q] * 12, "distinct_valid": [d + more] * 12})
        for run, more in (("MLE", 0.0), ("IQLearn", 2.0))
        for t, q, d in ((0.5, 0.8, 1.0), (1.0, 0.4, 5.0))
    ]
    found = sweep_tables.findings(cells, quality="accuracy", diversity="distinct_valid")
    [comparison] = json.loads(json.dumps(found))["comparisons"]
    assert (comparison["run"], comparison["baseline"]) == ("IQLearn", "MLE")
    assert round(comparison["area"]["mean"], 9) == 0.8
    # Prompts that are all alike say nothing of noise: there is no interval, and it is said why.
    assert comparison["area"]["low"] is None and comparison["prompts"] == 12
    assert comparison["too_few"].endswith("differs from its commonest value in 0 of 12 prompts, 8 are needed")
    assert [(c["run"], c["temperature"]) for c in found["hull"]] == [("IQLearn", 0.5), ("IQLearn", 1.0)]
    assert sweep_tables.findings(cells, quality="accuracy", diversity="bleu")["comparisons"] == []
    swapped = sweep_tables.findings(
        cells, quality="accuracy", diversity="distinct_valid", baseline="IQLearn"
    )["comparisons"]
    assert swapped[0]["area"]["mean"] < 0


def test_the_points_of_a_curve_are_means_over_seeds():
    """Accuracy .2 and .6 with two seeds: .4; a metric without values by prompt has no interval."""
    cells = [
        Cell("MLE", seed, 0.5, {"bleu": 30.0 + seed}, {"accuracy": [float(i < right) for i in range(20)]})
        for seed, right in ((0, 4), (1, 12))
    ]
    accuracy, bleu = sweep_tables.curve_rows(cells, ["accuracy", "bleu"])
    place = {"run": "MLE", "seeds": 2, "temperature": 0.5, "top_p": 1.0}
    assert bleu == place | {"metric": "bleu", "value": 30.5, "low": None, "high": None}
    assert round(accuracy["value"], 9) == 0.4 and accuracy["low"] < 0.4 < accuracy["high"]

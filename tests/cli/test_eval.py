"""`lmirl eval` on a run without training: its table and JSON say over how many of how many, with intervals that hold."""

import json

import pytest

import lmirl_jax.cli
from lmirl_jax.cli.eval import metric_table
from lmirl_jax.statistics.proportions import share_interval
from tests.fakes import make_run


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """12 of the 512 prompts of number_paths' validation split, with answers at random."""
    run = make_run(tmp_path_factory.mktemp("eval") / "run")
    given = [
        "EVALUATOR_NUM_EXAMPLES=12",
        "EVAL_BATCH_SIZE=8",
        "TEMPERATURES=[1.0]",
        f"CHECKPOINT_PATH='{run}'",
    ]
    assert lmirl_jax.cli.main(["eval", "--gin_file=gin/runs/eval.gin", *(f"--gin.{b}" for b in given)]) == 0
    [path] = (run / "eval").glob("*.json")
    return json.loads(path.read_text())


def test_the_json_says_over_how_many_of_how_many(evaluated):
    [cell] = evaluated
    assert cell["prompts"] == 12 and cell["prompts_available"] > 12
    assert cell["signatures"] == {}  # The task has neither BLEU nor ChrF.


def test_nothing_right_of_12_may_be_more(evaluated):
    """A policy without training has no right answer; Wilson's upper end is 3.84 / (12 + 3.84), the bootstrap's was 0."""
    [cell] = evaluated
    assert cell["metrics"]["accuracy"] == 0
    assert cell["intervals"]["accuracy"] == [0.0, pytest.approx(share_interval([False] * 12)[1])]
    assert cell["intervals"]["accuracy"][1] == pytest.approx(1.959964**2 / (12 + 1.959964**2))


def test_the_table_shows_both_ends_of_an_asymmetric_interval():
    cell = {
        "temperature": 0.0,
        "metrics": {"accuracy": 1.0, "answer_tokens": 9.5, "distinct_1": 0.25},
        "intervals": {"accuracy": (0.839, 1.0), "answer_tokens": (9.0, 10.0)},
    }
    row = " ".join(metric_table([cell]).splitlines()[1].split())
    assert row == "0 1.000 [0.839, 1.000] 9.500 ±0.500 0.250"

"""RERANK in `lmirl infer` and in a sweep: what lines and cells then hold, and that they hold nothing of it without."""

import json
import math

import pytest
from etils import epath

from lmirl_jax import configuration
from lmirl_jax.cli import sweep
from lmirl_jax.cli.infer import _vote_of, infer
from lmirl_jax.cli.reranking import Reranking
from lmirl_jax.cli.sweep_plan import AnsweringRun, SweepConfig, check_sweep
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError
from tests.fakes import make_run

SCORES = {"return", "normalised_return", "log_likelihood"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two of the same task, the second with a gamma of its own."""
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "one"), make_run(folder / "other", "DISCOUNT = 0.9", seed=1)


def checkpoint(run):
    return epath.Path(run) / "checkpoints" / "3"


def configured(function, run, name, *bindings):
    """As the commands do: the run's own configuration, the command's file over it, and flags."""
    configuration.load([str(run / "config.gin"), f"gin/runs/{name}.gin"], bindings)
    return configuration.with_configuration(function)


def answer(run, path, *bindings):
    small = ["INFER_NUM_EXAMPLES = 12", "NUM_SAMPLES = 3", "EVAL_BATCH_SIZE = 8"]
    given = [f"CHECKPOINT_PATH = '{run}'", f"OUTPUT_PATH = '{path}'", *small, *bindings]
    configured(infer, run, "infer", *given)(checkpoint(run))
    return path.read_text().splitlines()


def test_lines_have_scores_with_rerank_alone(runs, tmp_path):
    run, other = runs
    plain = [json.loads(line) for line in answer(run, tmp_path / "plain.jsonl")]
    reward = f"REWARD_CHECKPOINT_PATH = '{other}'"
    scored = [json.loads(line) for line in answer(run, tmp_path / "a.jsonl", "RERANK = True", reward)]
    assert len(scored) == len(plain) == 12
    for line, without in zip(scored, plain, strict=True):
        assert set(line) - set(without) == {"returns", "normalised_returns", "best", "majority"}
        assert {name: line[name] for name in without} == without
        assert set(line["best"]) == SCORES and len(line["returns"]) == 3
        assert line["best"]["log_likelihood"] == max(range(3), key=lambda i: line["log_probs"][i])
        assert line["best"]["return"] == max(range(3), key=lambda i: line["returns"][i])
        assert set(line["majority"]) == {"votes", *SCORES} and set(line["majority"].values()) <= set(
            line["samples"]
        )


def test_samples_vote_for_what_the_function_reads_in_them(runs, tmp_path):
    run = runs[0]
    given = ["RERANK = True", "VOTE = @number_paths.last_number"]
    for line in map(json.loads, answer(run, tmp_path / "a.jsonl", *given)):
        numbers = [number_paths.last_number(text) for text in line["samples"]]
        assert set(line["majority"].values()) <= {*numbers, None}
        by_return: dict = {}
        for number, score in zip(numbers, line["returns"], strict=True):
            if number is not None:
                by_return[number] = by_return.get(number, 0.0) + math.exp(score - max(line["returns"]))
        if by_return:
            assert line["majority"]["return"] == max(by_return, key=by_return.__getitem__)
    for vote, line in (
        (int, "VOTE=int raised ValueError: invalid literal"),
        (list, "VOTE=list raised TypeError"),
    ):
        with pytest.raises(UserError, match=line):
            _vote_of("no number", vote)
    with pytest.raises(UserError, match="VOTE=last_number has no effect without RERANK"):
        answer(run, tmp_path / "b.jsonl", given[1])
    with pytest.raises(UserError, match="VOTE=3 must be a function, or None"):
        answer(run, tmp_path / "b.jsonl", given[0], "VOTE = 3")


def test_a_killed_call_continues_with_the_same_scores_alone(runs, tmp_path):
    run, other = runs
    path, on = tmp_path / "a.jsonl", "RERANK = True"
    whole = answer(run, path, on)
    path.unlink()
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("json.dumps", stopped_after(5))
        answer(run, path, on)
    assert len((tmp_path / "a.jsonl.partial").read_text().splitlines()) == 5
    assert answer(run, path, on) == whole
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr("json.dumps", stopped_after(5))
        answer(run, path, on)
    with pytest.raises(UserError, match="RERANK"):
        answer(run, path, on, f"REWARD_CHECKPOINT_PATH = '{other}'")


def stopped_after(lines, dumps=json.dumps):
    written = []

    def stopping(value, **arguments):
        if isinstance(value, dict) and "samples" in value:
            if len(written) == lines:
                raise KeyboardInterrupt
            written.append(value)
        return dumps(value, **arguments)

    return stopping


SMALL = ["EVALUATOR_NUM_EXAMPLES = 8", "NUM_SAMPLES = 2", "EVAL_BATCH_SIZE = 8"]


def policy(run, *bindings):
    given = ["RUNS = {'a': 'b'}", "OUTPUT_DIR = '/unused'", *SMALL, *bindings]
    return configured(AnsweringRun, run, "sweep", *given)("MLE", 0, checkpoint(run))


def test_cells_of_a_sweep_have_the_best_of_n_and_weighted_majorities(runs, tmp_path):
    run, other = runs
    config, cells = SweepConfig([1.0], quality="best_of_2_by_return/accuracy"), epath.Path(tmp_path)
    scored = policy(run, "RERANK = True", f"REWARD_CHECKPOINT_PATH = '{other}'")
    check_sweep([scored], config)
    with pytest.raises(UserError, match="QUALITY: the task has no metric 'best_of_2_by_return/accuracy'"):
        check_sweep([policy(run)], config)
    [(_, cell)] = sweep.finish([scored], config, cells)
    for name in SCORES:
        assert f"weighted_maj_at_2_by_{name}" in cell.per_prompt
        assert f"best_of_2_by_{name}/accuracy" in cell.intervals
    assert set(cell.answers[0]["best"]) == SCORES
    [(_, plain)] = sweep.finish([policy(run)], config, cells)
    assert not [name for name in plain.metrics if "_by_" in name] and "best" not in plain.answers[0]
    assert {name: cell.metrics[name] for name in plain.metrics} == plain.metrics


def test_other_scores_make_other_cells(runs):
    run, other = runs
    reward = f"REWARD_CHECKPOINT_PATH = '{other}'"
    ways = [[], ["RERANK = True"], ["RERANK = True", reward]]
    ways += [["RERANK = True", "REWARD_DISCOUNT = 0.5"], ["RERANK = True", reward, "REWARD_DISCOUNT = 0.5"]]
    found = [policy(run, *way).settings([(1.0, 1.0)])[0].rerank for way in ways]
    assert found[0] is None and len(set(found)) == len(ways)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"on": "return"}, "on='return' must be True or False, or None"),
        (
            {"reward_path": "/run"},
            "REWARD_CHECKPOINT_PATH='/run' has no effect without RERANK: add --gin.RERANK",
        ),
        ({"reward_discount": 0.9}, "REWARD_DISCOUNT=0.9 has no effect without RERANK"),
    ],
)
def test_settings_without_effect_are_refused(arguments, line):
    with pytest.raises(UserError, match=line):
        Reranking(**arguments)


def test_a_missing_reward_is_an_error_before_a_file_is_written(runs, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere"):
        nowhere = f"REWARD_CHECKPOINT_PATH = '{tmp_path / 'nowhere'}'"
        answer(runs[0], tmp_path / "new" / "a.jsonl", "RERANK = True", nowhere)
    assert not (tmp_path / "new").exists()

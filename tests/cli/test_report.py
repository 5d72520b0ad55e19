"""`lmirl report`: from runs or scored files to one page; what is there is not made again, and mistakes are one line."""

import csv
import json
import os

import pytest

import lmirl_jax.cli
from tests.fakes import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return [str(make_run(folder / name, seed=seed)) for seed, name in enumerate(("one", "two"))]


def report(folder, runs, *more):
    small = ["EVALUATOR_NUM_EXAMPLES=6", "NUM_SAMPLES=2", "EVAL_BATCH_SIZE=8", "SCORE_BATCH_SIZE=8"]
    given = [f"--gin.{binding}" for binding in (*small, f"RUNS={runs!r}", f"OUTPUT_DIR={str(folder)!r}")]
    return lmirl_jax.cli.main(["report", "--gin_file=gin/runs/number_paths_report.gin", *given, *more])


@pytest.fixture(scope="module")
def made(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "out"
    assert report(folder, {"MLE": [runs[0]], "IQLearn": [runs[1]]}) == 0
    return folder


def test_what_it_writes(made, runs):
    assert {"report.html", "report.json", "correlations.csv", "answers", "scored", "damaged"} <= set(
        os.listdir(made)
    )
    found = json.loads((made / "report.json").read_text())
    assert [run["run"] for run in found["runs"]] == ["MLE", "IQLearn"] and found["metric"] == "valid"
    assert [run["answers"] for run in found["runs"]] == [12, 12]
    kinds = {effect["kind"]: effect["count"] for effect in found["runs"][0]["corruptions"]}
    assert kinds["wrong digit"] == kinds["wrong step"] == kinds["truncation"] == 6
    rows = list(csv.DictReader((made / "correlations.csv").read_text().splitlines()))
    assert {row["run"] for row in rows} == {"MLE", "IQLearn"} and {"measure", "metric", "value"} <= set(
        rows[0]
    )
    page = (made / "report.html").read_text()
    assert runs[0] in page and "wrong digit" in page


def test_each_run_rewards_its_own_answers_and_all_the_same_damaged_ones(made):
    (damaged,) = (made / "damaged").iterdir()
    lines = [json.loads(line) for line in damaged.read_text().splitlines()]
    assert len(lines) == 6 and all(len(line["candidates"]) == 7 for line in lines)
    scored = {path.name: path.read_text().splitlines() for path in (made / "scored").iterdir()}
    assert sorted(len(lines) for lines in scored.values()) == [12, 12, 42, 42]
    # A repeated step makes an answer longer than any in training: its row holds it.
    for lines in scored.values():
        if len(lines) == 42:
            assert not any(json.loads(line)["truncated"] for line in lines)


def test_answers_and_scores_on_disk_are_not_made_again(made, runs, capsys):
    files = [path for name in ("answers", "scored") for path in (made / name).iterdir()]
    before = {path: path.stat().st_mtime_ns for path in files}
    pages = (made / "report.json").read_text()
    assert report(made, {"MLE": [runs[0]], "IQLearn": [runs[1]]}) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert (made / "report.json").read_text() == pages
    out = capsys.readouterr().out
    assert f"report: {made / 'report.html'}" in out and "finished in" in out


def test_answers_of_one_run_for_all_and_seeds(runs, tmp_path):
    assert report(tmp_path, {"both": runs}, "--gin.ANSWERS_OF='both'", "--gin.CORRUPTIONS={}") == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["runs"][0]["seeds"] == 2 and found["runs"][0]["corruptions"] == []
    assert len(list((tmp_path / "answers").iterdir())) == 1  # The first seed's.
    texts = [
        [json.loads(line)["targets"] for line in path.read_text().splitlines()]
        for path in (tmp_path / "scored").iterdir()
    ]
    assert texts[0] == texts[1]


def test_files_of_scores_need_no_model(made, tmp_path):
    scored = [str(path) for path in (made / "scored").iterdir() if path.read_text().count("\n") == 12]
    assert report(tmp_path, {"a": [scored[0]], "b": [scored[1]]}) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    assert [run["answers"] for run in found["runs"]] == [12, 12]
    assert not (tmp_path / "answers").exists()


@pytest.mark.parametrize(
    "named, more, line",
    [
        ({}, [], "RUNS={} must be labels with a list of paths each"),
        ({"a": ["/nowhere"]}, [], "no checkpoint at /nowhere"),
        (
            {"a": ["/nowhere.jsonl"]},
            [],
            "RUNS: no file at /nowhere.jsonl: name a run, or what lmirl score wrote",
        ),
        ("one", ["--gin.ANSWERS_OF='b'"], "ANSWERS_OF='b' is no run: choose among a, or None"),
        ("one", ["--gin.METRIC='vald'"], "METRIC: the task has no metric 'vald'; did you mean 'valid'?"),
        ("one", ["--gin.EVAL_SPLIT='dev'"], "its task has no such split: set EVAL_SPLIT"),
        (
            "one",
            ["--gin.CORRUPTIONS={'a': 3}"],
            "CORRUPTIONS={'a': 3} must be a dictionary, each value a function",
        ),
        ("twice", [], "twice: it would count as two; name it once"),
    ],
)
def test_mistakes_are_one_line(runs, tmp_path, capsys, named, more, line):
    given = (
        {"one": {"a": runs[:1]}, "twice": {"a": [runs[0], runs[0]]}}[named]
        if isinstance(named, str)
        else named
    )
    assert report(tmp_path / "out", given, *more) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lmirl: ") and line in error, error
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def scored_chains(tmp_path_factory):
    """Answers to 12 prompts, wrong from their second line on, that `lmirl score` of an untrained run scored."""
    folder = tmp_path_factory.mktemp("chains")
    numbers = range(1, 4)
    rows = [
        {"inputs": f"{a}+{b}+1+1+1", "targets": f"{a}+{b}={a + b}\n{a + b}+1={a + b}\n{a + b}+1={a + b + 1}"}
        for a in numbers
        for b in range(1, 5)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = make_run(folder / "run", "TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 32}")
    words = [
        f"CHECKPOINT_PATH={str(run)!r}",
        f"DATA={str(folder / 'answers.jsonl')!r}",
        "SCORE_METRICS=False",
    ]
    words += [
        f"OUTPUT_PATH={str(folder / 'scored.jsonl')!r}",
        "SCORE_BATCH_SIZE=8",
    ]
    given = [f"--gin.{word}" for word in words]
    assert lmirl_jax.cli.main(["score", "--gin_file=gin/runs/score.gin", *given]) == 0
    return str(folder / "scored.jsonl")


def report_steps(scored, folder, *more):
    given = [f"--gin.RUNS={{'run': [{scored!r}]}}", f"--gin.OUTPUT_DIR={str(folder)!r}"]
    return lmirl_jax.cli.main(["report", "--gin_file=gin/runs/operation_chains_report.gin", *given, *more])


def test_scores_of_steps_are_held_to_the_checker(scored_chains, tmp_path, capsys):
    assert report_steps(scored_chains, tmp_path / "out") == 0
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["steps"]
    assert {row["scores"] for row in rows} == {"reward", "log_prob", "value", "random"}
    assert all(
        (row["prompts"], row["answers"], round(row["by_chance"], 4)) == (12, 12, 0.3333) for row in rows
    )
    assert "that of the first wrong one in so many cases" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert ">Steps<" in page and "by chance" in page


@pytest.mark.parametrize(
    "more, line",
    [
        ("--gin.GOLD_STEPS=None", "STEP_SCORES random are held to a checker of steps: set GOLD_STEPS too"),
        ("--gin.GOLD_STEPS=@operation_chains.reward", "GOLD_STEPS gave"),
        ("--gin.STEP_SCORES={'a': @rewards.RolloutScores}", "@rewards.RolloutScores()"),
        ("--gin.STEP_SCORES={'a': @rewards.RolloutScores()}", "set ROLLOUT_CHECKPOINT_PATH"),
    ],
)
def test_mistakes_about_steps_are_one_line(scored_chains, tmp_path, capsys, more, line):
    assert report_steps(scored_chains, tmp_path / "out", more) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("lmirl: ") and line in error, error

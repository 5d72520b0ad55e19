"""`lmirl score` as a user types it: every kind of input and output, killed and resumed, and what it says of mistakes."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

import lmirl_jax.cli
from lmirl_jax.line_hashes import HashedLines
from tests.fakes import make_run

LINES = [
    {"inputs": "3+8+5+9", "targets": "3+8=11 5+9=14 11+14=25", "id": "first"},
    {"inputs": "1+2+3+4", "candidates": ["1+2=3 3+3=6 6+4=10", "10"], "targets": "1+2=3 3+3=6 6+4=10"},
    {"inputs": "1+2+3+4", "targets": "1" * 40},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("score") / "run")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def arguments(run, *more, **macros):
    return [
        "score",
        "--gin_file=gin/runs/score.gin",
        f"--gin.CHECKPOINT_PATH={str(run)!r}",
        *(f"--gin.{name}={value!r}" for name, value in macros.items()),
        *more,
    ]


def score(run, capsys, *more, **macros):
    code = lmirl_jax.cli.main(arguments(run, *more, SCORE_BATCH_SIZE=8, **macros))
    out, error = capsys.readouterr()
    return code, out.strip(), error


def read(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def test_pairs_and_candidates_of_a_file(run, data, tmp_path, capsys):
    path = tmp_path / "scored.jsonl"
    code, out, error = score(run, capsys, DATA=str(data), OUTPUT_PATH=str(path))
    assert (code, out) == (0, str(path)) and sorted(os.listdir(tmp_path)) == ["pairs.jsonl", "scored.jsonl"]
    rows = read(path)
    assert [(row["example"], row["candidate"]) for row in rows] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert [row["id"] for row in rows] == ["first", None, None, None]
    for row in rows[:3]:
        names = ("q", "v", "reward", "log_prob", "entropy", "pieces", "offsets", "tokens")
        assert {len(row[name]) for name in names} == {len(row["targets"]) + 1}
        assert "".join(row["pieces"]) == row["targets"] and not row["truncated"]
        assert abs(sum(row["reward"]) - row["return"]) < 1e-4
        assert abs(row["v_0"] + row["log_likelihood"] - row["return"]) < 1e-4
    assert rows[0]["metrics"] == {} and rows[1]["metrics"]["accuracy"] == 1.0 > rows[2]["metrics"]["accuracy"]
    assert rows[3]["truncated"] and rows[3]["reward"][-1] is None and len(rows[3]["tokens"]) == 23
    assert "score: 1 answers are truncated: they lack their EOS, so their last token has no reward" in error


def test_samples_of_infer_keep_their_tokens(run, tmp_path, capsys):
    answers = tmp_path / "answers.jsonl"
    infer = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.CHECKPOINT_PATH={str(run)!r}"]
    infer += ["--gin.INFER_NUM_EXAMPLES=3", "--gin.NUM_SAMPLES=2", f"--gin.OUTPUT_PATH={str(answers)!r}"]
    assert lmirl_jax.cli.main([*infer, "--gin.EVAL_BATCH_SIZE=8"]) == 0
    code, _, error = score(run, capsys, DATA=str(answers), OUTPUT_PATH=str(tmp_path / "scored.jsonl"))
    assert code == 0, error
    rows = read(tmp_path / "scored.jsonl")
    asked = [(line, i) for line in read(answers) for i in range(2)]
    for row, (line, i) in zip(rows, asked, strict=True):
        assert row["tokens"] == line["tokens"][i] and row["targets"] == line["samples"][i]
        assert row["reference"] == line["targets"] and "accuracy" in row["metrics"]
        # Teacher forcing finds what sampling said.
        assert (
            max(abs(a - b) for a, b in zip(row["log_prob"], line["token_log_probs"][i], strict=True)) < 1e-4
        )
        assert max(abs(a - b) for a, b in zip(row["entropy"], line["token_entropies"][i], strict=True)) < 1e-4


def test_a_split_of_the_task_as_parquet(run, tmp_path, capsys):
    for name in ("scored.parquet", "scored.jsonl"):
        path = tmp_path / name
        code, out, error = score(run, capsys, SCORE_NUM_EXAMPLES=5, OUTPUT_PATH=str(path), SCORE_SPLIT="test")
        assert (code, out) == (0, str(path)), error
    table = pq.read_table(tmp_path / "scored.parquet").to_pylist(maps_as_pydicts="strict")
    assert table == read(tmp_path / "scored.jsonl")
    assert sorted(os.listdir(tmp_path)) == ["scored.jsonl", "scored.parquet"]


def test_the_default_output_lies_in_the_run(run, capsys):
    code, out, _ = score(run, capsys, SCORE_NUM_EXAMPLES=2)
    assert (code, out) == (0, str(run / "score" / "number_paths-validation-000003.jsonl"))


def test_gamma_is_that_of_the_run_unless_it_is_set(tmp_path, data, capsys):
    own = make_run(tmp_path / "own", "DISCOUNT = 0.5")
    found = {}
    for name, more in {"own": {}, "other": {"DISCOUNT": 1.0}}.items():
        path = tmp_path / f"{name}.jsonl"
        assert score(own, capsys, DATA=str(data), OUTPUT_PATH=str(path), **more)[0] == 0
        found[name] = read(path)[0]
    for name, gamma in (("own", 0.5), ("other", 1.0)):
        row = found[name]
        expected = [q - gamma * v for q, v in zip(row["q"], [*row["v"][1:], 0.0], strict=True)]
        assert max(abs(r - e) for r, e in zip(row["reward"], expected, strict=True)) < 1e-5


def test_the_data_that_a_run_was_trained_on_may_be_gone(tmp_path, data, capsys):
    own = tmp_path / "mine.jsonl"
    own.write_text('{"inputs": "a", "targets": "b"}\n')
    run = make_run(tmp_path / "run", f"DATA = {str(own)!r}", "MIXTURE_OR_TASK_NAME = None")
    own.unlink()
    code, _, error = score(run, capsys, DATA=str(data), OUTPUT_PATH=str(tmp_path / "scored.jsonl"))
    assert code == 0, error
    assert read(tmp_path / "scored.jsonl")[1]["metrics"] == {"exact_match": 1.0}


def test_another_task_than_that_of_the_run(tmp_path, capsys):
    own = tmp_path / "mine.jsonl"
    own.write_text('{"inputs": "a", "targets": "b"}\n')
    run = make_run(tmp_path / "run", f"DATA = {str(own)!r}", "MIXTURE_OR_TASK_NAME = None")
    path = tmp_path / "scored.jsonl"
    named = {"MIXTURE_OR_TASK_NAME": "number_paths", "SCORE_NUM_EXAMPLES": 2}
    assert score(run, capsys, OUTPUT_PATH=str(path), **named)[0] == 0
    assert len(read(path)) == 2
    answers = ["infer", "--gin_file=gin/runs/infer.gin", f"--gin.CHECKPOINT_PATH={str(run)!r}"]
    answers += ["--gin.MIXTURE_OR_TASK_NAME='number_paths'", "--gin.DATA=None", "--gin.INFER_NUM_EXAMPLES=2"]
    answers += [f"--gin.OUTPUT_PATH={str(tmp_path / 'answers.jsonl')!r}", "--gin.EVAL_BATCH_SIZE=8"]
    assert lmirl_jax.cli.main(answers) == 0 and len(read(tmp_path / "answers.jsonl")) == 2


def test_a_reference_and_shaping_change_rewards(run, tmp_path, data, capsys):
    path = tmp_path / "scored.jsonl"
    settings = {"REFERENCE_PATH": str(run), "BETA": 0.5, "SHAPING": "value"}
    assert score(run, capsys, DATA=str(data), OUTPUT_PATH=str(path), **settings)[0] == 0
    row = read(path)[0]
    assert row["reference_log_prob"] == row["log_prob"]
    # Shaped it is log pi, and half of the same is taken off.
    assert max(abs(r - p / 2) for r, p in zip(row["reward"], row["log_prob"], strict=True)) < 1e-5


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_an_interrupted_file_continues_without_repeats(run, tmp_path, capsys, suffix):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / f"cut.{suffix}"
    assert score(run, capsys, SCORE_NUM_EXAMPLES=20, OUTPUT_PATH=str(whole))[0] == 0
    text = whole.read_bytes()
    settings = _settings_of(run, tmp_path, capsys)
    for size in (10, len(text) // 2, len(text) - 1):
        write_partial(tmp_path / cut.name, text[:size])
        shutil.copy(settings, tmp_path / f"{cut.name}.partial.json")
        code, _, error = score(run, capsys, SCORE_NUM_EXAMPLES=20, OUTPUT_PATH=str(cut))
        assert code == 0, error
        assert (size < 100) or "goes on after" in error
        if suffix == "jsonl":
            assert cut.read_bytes() == text
        else:
            assert pq.read_table(cut).to_pylist(maps_as_pydicts="strict") == read(whole)


def write_partial(path, text):
    """The lines of an interrupted file, and beside them their hashes."""
    with (
        open(f"{path}.partial", "w+b") as lines,
        open(f"{path}.partial.hashes", "w+b") as hashes,
    ):
        HashedLines(lines, hashes).write(text.decode())


def _first_row_alone():
    rows = iter([{}])
    return lambda self: next(rows)


def _settings_of(run, tmp_path, capsys):
    """What lies beside a partial file, of a run that was interrupted by an error of ours."""
    path = tmp_path / "kept.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmirl_jax.rewards.ScoredAnswer.to_row", _first_row_alone())
        with pytest.raises(StopIteration):
            score(run, capsys, SCORE_NUM_EXAMPLES=20, OUTPUT_PATH=str(tmp_path / "failed.jsonl"))
    shutil.move(tmp_path / "failed.jsonl.partial.json", path)
    for end in ("", ".hashes"):
        (tmp_path / f"failed.jsonl.partial{end}").unlink()
    return path


@pytest.mark.e2e
@pytest.mark.slow
def test_a_killed_and_resumed_file_equals_an_uninterrupted_one(run, tmp_path):
    data = tmp_path / "many.jsonl"
    lines = ({"inputs": "1+2+3+4", "targets": f"1+2=3 3+3=6 6+4={n}"} for n in range(6_000))
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def command(name):
        given = arguments(run, DATA=str(data), OUTPUT_PATH=str(tmp_path / name), SCORE_BATCH_SIZE=64)
        return [sys.executable, "-P", "-m", "lmirl_jax", *given]

    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    whole = subprocess.Popen(command("whole.jsonl"), env=environment, stderr=subprocess.PIPE)
    killed = subprocess.Popen(command("killed.jsonl"), env=environment, stderr=subprocess.PIPE)
    partial = tmp_path / "killed.jsonl.partial"
    deadline = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 300_000) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = partial.read_bytes().count(b"\n")
    assert 0 < done < 6_000
    resumed = subprocess.run(command("killed.jsonl"), env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0 and "score: goes on after" in resumed.stderr, resumed.stderr
    assert whole.communicate() and whole.returncode == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.e2e
@pytest.mark.slow
def test_two_processes_write_what_one_does(run, data, tmp_path, repository):
    launchers = {"one": (["-m", "lmirl_jax"], 8), "two": ([str(repository / "launch/processes.py"), "2"], 4)}
    running = []
    for name, (launcher, devices) in launchers.items():
        given = arguments(run, DATA=str(data), OUTPUT_PATH=str(tmp_path / name), SCORE_BATCH_SIZE=8)
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        command = [sys.executable, "-P", *launcher, *given]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    assert [process.communicate()[1] * process.returncode for process in running] == ["", ""]
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert a["tokens"] == b["tokens"]
        for name in ("q", "v", "log_prob", "entropy"):
            assert max(abs(x - y) for x, y in zip(a[name], b[name], strict=True)) < 1e-5


@pytest.mark.usefixtures("on_eight_devices")
def test_mistakes_are_one_line_and_leave_nothing(run, data, tmp_path, capsys):
    made = str(tmp_path / "out" / "scored.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"inputs": "1+2", "targets": "3"}\n{"inputs": "1+2"}\n')
    for macros, line in [
        ({"DATA": "nowhere.jsonl"}, "no file at nowhere.jsonl: DATA must name a file"),
        ({"DATA": str(tmp_path / "bad.jsonl")}, "bad.jsonl, line 2: neither targets, candidates nor samples"),
        ({"SCORE_SPLIT": "dev"}, "number_paths has no split 'dev'; it has"),
        ({"SHAPING": "values"}, "SHAPING='values' must be 'value', or None"),
        ({"DISCOUNT": 2.0}, "DISCOUNT=2.0 must be a number from 0 to 1"),
        ({"REFERENCE_PATH": "/nowhere"}, "no checkpoint at /nowhere"),
        ({"OUTPUT_PATH": str(tmp_path)}, "is a folder: name a file, such as"),
        ({"SCORE_SPLITS": "test"}, "SCORE_SPLIT"),
        (
            {"DATA": str(data), "SCORE_METRICS": False, "SCORE_BATCH_SIZE": 3},
            "SCORE_BATCH_SIZE=3 cannot be split",
        ),
    ]:
        given = arguments(run, **{"OUTPUT_PATH": made, "SCORE_BATCH_SIZE": 8} | macros)
        code, error = lmirl_jax.cli.main(given), capsys.readouterr().err.strip().splitlines()[-1]
        assert code == 1 and line in error and error.startswith("lmirl: "), (macros, error)
        assert not (tmp_path / "out").exists()


def test_another_setting_does_not_continue_a_partial_file(run, tmp_path, capsys):
    settings = _settings_of(run, tmp_path, capsys)
    write_partial(tmp_path / "one.jsonl", b"{}\n")
    shutil.move(settings, tmp_path / "one.jsonl.partial.json")
    code, _, error = score(
        run, capsys, SCORE_NUM_EXAMPLES=20, DISCOUNT=0.5, OUTPUT_PATH=str(tmp_path / "one.jsonl")
    )
    assert code == 1 and "was begun with DISCOUNT=1.0, not 0.5: give the same settings" in error

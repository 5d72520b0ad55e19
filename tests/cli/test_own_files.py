"""Files of a user's own through the commands: a mixture with rates, columns by name, and a share that is held out."""

import csv
import gzip
import json
import pathlib

import pytest

import lmirl_jax.cli

pytestmark = pytest.mark.slow

FILES = ("gin/runs/finetune.gin", "gin/models/t5_1_1/tiny.gin")
COLUMNS = {"inputs": "ask", "targets": "say"}
SIZES = {"TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8}, "BATCH_SIZE": 8}
SETTINGS = {
    **SIZES,
    "TRAIN_STEPS": 2,
    "VALIDATION_SHARE": 0.3,
    "COLUMNS": COLUMNS,
    "EVALUATOR_NUM_EXAMPLES": 4,
}


def command(capfd, name, *files, **macros):
    given = [f"--gin_file={file}" for file in files] + [
        f"--gin.{key}={value!r}" for key, value in macros.items()
    ]
    code = lmirl_jax.cli.main([name, *given])
    out, error = capfd.readouterr()
    return code, out, error.splitlines()


def lines_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


@pytest.fixture
def rates(tmp_path, monkeypatch):
    """Two kinds of files, which a mapping names relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    with gzip.open("sums.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["ask", "say", "note"], *([f"{n}+1", str(n + 1), "x"] for n in range(30))])
    (tmp_path / "parts").mkdir()
    for part in range(2):
        rows = [{"ask": f"{n}*2", "say": [str(2 * n), f"{n}+{n}"]} for n in range(part * 15, part * 15 + 15)]
        (tmp_path / f"parts/{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"sums.csv.gz": 2, "parts/*.jsonl": 1}


def test_a_mixture_of_files_from_training_to_scores(rates, tmp_path, capfd):
    code, _, error = command(capfd, "train", *FILES, MODEL_DIR="run", DATA=rates, **SETTINGS)
    assert code == 0, error
    assert any("keys that are not read, and have no effect: 'note'" in line for line in error)
    assert any("have several targets: the first is learnt" in line for line in error)
    metrics = lines_of("run/metrics.jsonl")
    names = {"eval/loss", "eval/mixture/sums/exact_match", "eval/mixture/parts/exact_match"}
    assert names <= metrics[-1].keys()
    config = (tmp_path / "run/config.gin").read_text()
    assert repr(str(tmp_path / "sums.csv.gz")) in config and repr(str(tmp_path / "parts/*.jsonl")) in config

    # Other data are no continuation.
    changed = SETTINGS | {"VALIDATION_SHARE": 0.6, "TRAIN_STEPS": 3}
    code, _, error = command(capfd, "train", *FILES, MODEL_DIR="run", DATA=rates, **changed)
    assert code == 1 and "the checkpoint was trained on other data" in error[-1]

    # A run that starts from this one has its files and how they are read.
    new = {"MODEL_DIR": "new", "INITIAL_CHECKPOINT_PATH": "run", "TRAIN_STEPS": 1, "EVALUATIONS": []}
    code, _, error = command(capfd, "train", *FILES, **new)
    assert code == 0, error
    assert any("COLUMNS={'inputs': 'ask', 'targets': 'say'}, VALIDATION_SHARE=0.3" in line for line in error)

    # Prompts and answers have the run's columns; the output of one command is read by the next.
    given = {"CHECKPOINT_PATH": "run", "NUM_SAMPLES": 2}
    code, _, error = command(
        capfd, "infer", "gin/runs/infer.gin", PROMPTS="parts/*.jsonl", OUTPUT_PATH="out.jsonl", **given
    )
    assert code == 0, error
    rows = lines_of("out.jsonl")
    assert rows[0]["targets"] == ["0", "0+0"]
    firsts = [row["targets"] if isinstance(row["targets"], str) else row["targets"][0] for row in rows]
    assert firsts == [str(2 * n) for n in range(30)]
    scored = {"CHECKPOINT_PATH": "run", "OUTPUT_PATH": "scored.jsonl"}
    for data, count in (("out.jsonl", 60), ("sums.csv.gz", 30)):
        code, _, error = command(capfd, "score", "gin/runs/score.gin", DATA=data, **scored)
        assert code == 0, error
        assert len(lines_of("scored.jsonl")) == count
    assert not any("COLUMNS" in line for line in error)


@pytest.mark.parametrize(
    ("macros", "message"),
    [
        (
            {"DATA": {"sums.csv.gz": 0}},
            "DATA={'sums.csv.gz': 0} must be a path in quotes, {'a.jsonl': 3, 'b/*.csv': 1}",
        ),
        ({"DATA": {"none-*.csv": 1}}, "no file matches"),
        (
            {"DATA": "sums.csv.gz", "COLUMNS": {"input": "ask"}},
            "COLUMNS={'input': 'ask'} must be {'inputs': 'question'",
        ),
        (
            {"DATA": "sums.csv.gz", "COLUMNS": None},
            "sums.csv.gz, line 2: no key 'inputs' (found: ask, note, say)",
        ),
        (
            {"DATA": "sums.csv.gz", "VALIDATION_DATA": "sums.csv.gz"},
            "VALIDATION_SHARE=0.3 and VALIDATION_DATA are both set",
        ),
        (
            {"DATA": "sums.csv.gz", "VALIDATION_SHARE": 1.5},
            "VALIDATION_SHARE=1.5 must be a number from 0 to below 1",
        ),
        ({"MIXTURE_OR_TASK_NAME": "number_paths"}, "COLUMNS goes with DATA"),
        ({"MIXTURE_OR_TASK_NAME": "number_paths", "COLUMNS": None}, "VALIDATION_SHARE goes with DATA"),
    ],
)
def test_a_mistake_is_one_line(rates, tmp_path, capfd, macros, message):
    code, _, error = command(capfd, "train", *FILES, **{"MODEL_DIR": "run", **SETTINGS, **macros})
    assert code == 1 and message in error[-1], error
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_does_not_write_over_files_of_a_pattern(rates, tmp_path, capfd):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").hardlink_to(tmp_path / "parts/0.jsonl")
    code, _, error = command(capfd, "train", *FILES, MODEL_DIR="run", DATA=rates, **SETTINGS)
    assert code == 1 and "would overwrite DATA" in error[-1] and "parts/0.jsonl" in error[-1]

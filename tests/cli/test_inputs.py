"""What every command does with its inputs: it never overwrites them, and never reads a run in another vocabulary."""

import json

import pytest

import lmirl_jax.cli
from tests.fakes import make_run

LINE = {"inputs": "3+8+5+9", "targets": "3+8=11 5+9=14 11+14=25"}


@pytest.fixture(scope="module")
def words(words_model, train_vocabulary):
    """Two vocabularies whose sizes round up to the same multiple of 128."""
    return words_model, train_vocabulary([f"u {n} v {n + 1} w" for n in range(100)])


@pytest.fixture(scope="module")
def run(words, tmp_path_factory):
    """Trained on a file in the first vocabulary."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "p.jsonl").write_text(json.dumps(LINE) + "\n")
    own = [f"DATA = '{folder / 'p.jsonl'}'", "MIXTURE_OR_TASK_NAME = None", f"VOCABULARY_PATH = '{words[0]}'"]
    return make_run(folder / "run", *own)


@pytest.fixture
def data(run, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(LINE) + "\n")
    (tmp_path / "link.jsonl").hardlink_to(path)
    return path


def command(capsys, *arguments, **macros):
    given = [*arguments, *(f"--gin.{name}={value!r}" for name, value in macros.items())]
    code = lmirl_jax.cli.main(given)
    out, error = capsys.readouterr()
    return code, out, error.splitlines()[-1] if error else ""


@pytest.mark.parametrize(("name", "setting"), [("infer", "PROMPTS"), ("score", "DATA")])
@pytest.mark.parametrize("output", ["p.jsonl", "link.jsonl", "../{}/p.jsonl"])
def test_answers_and_scores_do_not_overwrite_their_inputs(run, data, capsys, name, setting, output):
    before = data.read_bytes()
    path = data.parent / output.format(data.parent.name)
    given = {"CHECKPOINT_PATH": str(run), setting: str(data), "OUTPUT_PATH": str(path)}
    code, _, line = command(capsys, name, f"--gin_file=gin/runs/{name}.gin", **given)
    assert code == 1 and f"would overwrite {setting} {data}, which is read" in line
    assert data.read_bytes() == before and sorted(p.name for p in data.parent.iterdir()) == [
        "link.jsonl",
        "p.jsonl",
    ]


def test_answers_and_scores_do_not_overwrite_files_of_the_run(run, data, capsys):
    for output in ("config.gin", "metrics.jsonl"):
        given = {"CHECKPOINT_PATH": str(run), "PROMPTS": str(data), "OUTPUT_PATH": str(run / output)}
        code, _, line = command(capsys, "infer", "--gin_file=gin/runs/infer.gin", **given)
        assert code == 1 and f"would overwrite the run's {output} " in line


def test_a_filtered_file_does_not_replace_the_scored_one(data, capsys):
    given = {"SCORED": str(data), "OUTPUT_PATH": str(data.parent / "link.jsonl")}
    code, _, line = command(capsys, "filter", "--gin_file=gin/runs/filter.gin", **given)
    assert code == 1 and "would overwrite SCORED" in line


def train(capsys, **macros):
    files = ["gin/runs/finetune.gin", "gin/models/t5_1_1/tiny.gin"]
    given = {"TRAIN_STEPS": 1, "TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 23}} | macros
    return command(capsys, "train", *(f"--gin_file={file}" for file in files), **given)


def test_a_run_does_not_write_over_its_data(data, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").hardlink_to(data)
    code, _, line = train(capsys, MODEL_DIR=str(folder), DATA=str(data))
    assert code == 1 and "MODEL_DIR=" in line and "would overwrite DATA" in line
    assert data.read_text() == json.dumps(LINE) + "\n"


def test_an_output_that_would_not_be_read_again_is_refused(run, data, tmp_path, capsys):
    for name, ending in (("infer", ".parquet"), ("infer", ".txt"), ("score", ".csv")):
        given = {"CHECKPOINT_PATH": str(run), "PROMPTS" if name == "infer" else "DATA": str(data)}
        given["OUTPUT_PATH"] = str(tmp_path / f"out{ending}")
        code, _, line = command(capsys, name, f"--gin_file=gin/runs/{name}.gin", **given)
        assert code == 1 and f"has the ending {ending!r}: name it .jsonl or .json" in line


@pytest.mark.parametrize("name", ["infer", "score", "eval", "sweep", "report"])
def test_every_command_compares_vocabularies(run, words, data, tmp_path, capsys, name):
    given = {"VOCABULARY_PATH": str(words[1])}
    if name in ("sweep", "report"):
        given |= {"RUNS": {"a": [str(run)]}, "OUTPUT_DIR": str(tmp_path / "out")}
    else:
        given |= {"CHECKPOINT_PATH": str(run)}
    code, _, line = command(capsys, name, f"--gin_file=gin/runs/{name}.gin", **given)
    assert code == 1 and "checkpoints/3 was trained with another vocabulary than p has" in line
    assert "leave VOCABULARY_PATH as its run has it" in line and not (tmp_path / "out").exists()


def test_training_does_not_start_in_another_vocabulary(run, words, data, tmp_path, capsys):
    given = {"DATA": str(data), "VOCABULARY_PATH": str(words[1]), "INITIAL_CHECKPOINT_PATH": str(run)}
    code, _, line = train(capsys, MODEL_DIR=str(tmp_path / "new"), **given)
    assert code == 1 and "was trained with another vocabulary than p has" in line
    assert not (tmp_path / "new").exists()

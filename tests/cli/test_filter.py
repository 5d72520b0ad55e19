"""The command from a scored file to a training set, in this process."""

import json

import pytest

from lmirl_jax import cli, data
from tests.rewards.test_filtering import ANSWERS, answer


@pytest.fixture
def filtered(tmp_path, capsys):
    """Runs the command on the scored answers of the room below; returns its code, output and errors."""

    def run(*bindings):
        scored = tmp_path / "scored.jsonl"
        scored.write_text("".join(json.dumps(answer(*values).to_row()) + "\n" for values in ANSWERS))
        paths = {"SCORED": str(scored), "OUTPUT_PATH": str(tmp_path / "out" / "kept.jsonl")}
        flags = [f"--gin.{name}={path!r}" for name, path in paths.items()]
        code = cli.main(["filter", "--gin_file=gin/runs/filter.gin", *flags, *bindings])
        return code, *capsys.readouterr()

    return run


def test_what_it_writes_is_a_training_set(filtered, tmp_path):
    path = tmp_path / "out" / "kept.jsonl"
    code, out, err = filtered("--gin.KEEP=0.5", "--gin.WEIGHT_TEMPERATURE=1.0")
    assert (code, out) == (0, f"{path}: 2 of 5 answers, down to -2; 1 without EOS left out\n"), err
    task = data.get_task(data=str(path))
    train = data.TrainDataset(
        task, 2, {"inputs": 3, "targets": 2}, shuffle=False, cache_dir=str(tmp_path / "cache")
    )
    batch = next(train.iterator(slice(0, 2)))
    assert [task.decode(row) for row in batch.tokens] == ["a", "c"]
    # exp(0) and exp(-1), over their mean.
    assert batch.weights[:, 0].tolist() == pytest.approx([1.462117, 0.537883], abs=1e-5)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("--gin.BY='rouge_2'", "answer 1: no measure BY='rouge_2': did you mean 'rouge_1'?"),
        ("--gin.KEEP=90", "KEEP=90 must be a number above 0 and at most 1"),
        ("--gin.SCORED='/no/such'", "no file at /no/such: SCORED must be what lmirl score wrote"),
        ("--gin.SCORED=None", "SCORED=None must be a path in quotes: set --gin.SCORED="),
        ("--gin.OUTPUT_PATH='/proc/no/kept.jsonl'", "cannot write to the folder of OUTPUT_PATH /proc/no"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(filtered, tmp_path, binding, message):
    code, out, err = filtered(binding)
    assert (code, out) == (1, "")
    assert message in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["scored.jsonl"]

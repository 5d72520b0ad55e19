"""What a resumed run may change, by the command: each difference is a line that says what it does, or a refusal."""

import shutil

import pytest

from lmirl_jax.cli import main

SETTINGS = {
    "DATA": "'mine.jsonl'",
    "EVALUATIONS": "[]",
    "BATCH_SIZE": "8",
    "TRAIN_STEPS": "2",
    "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 8}",
    "LEARNING_RATE_SCHEDULE": "@training.warmup_cosine()",
    "training.warmup_cosine.peak": "%LEARNING_RATE",
    "training.warmup_cosine.warmup_steps": "0",
    "training.warmup_cosine.decay_steps": "%TRAIN_STEPS",
    "models.T5Config.emb_dim": "16",
    "models.T5Config.mlp_dim": "32",
}
FILES = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
LINE, REFUSAL = 0, 1
CASES = {
    "nothing": ({}, LINE, None),
    "fewer steps": (
        {"TRAIN_STEPS": "1"},
        LINE,
        "TRAIN_STEPS was 2 and is 1, and with it training.warmup_cosine.decay_steps: the schedule is a function of all",
    ),
    "the batch": (
        {"BATCH_SIZE": "16"},
        LINE,
        "BATCH_SIZE was 8 and is 16: the position in the data counts examples (rows, if packed) and is kept; schedules count",
    ),
    "microbatches": (
        {"NUM_MICROBATCHES": "1", "BATCH_SIZE": "24"},
        LINE,
        "BATCH_SIZE was 8 and is 24: the position",
    ),
    "lengths": (
        {"TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 6}"},
        LINE,
        "examples are cut elsewhere from here on",
    ),
    "the objective": ({"OBJECTIVE": "@objectives.mle"}, LINE, "the loss is another from here on"),
    "the weight of the penalty": ({"TD_WEIGHT": "0.3"}, LINE, "the loss is another from here on"),
    "an optimizer of the same shape": (
        {
            "OPTIMIZER": "@other/training.adamw()",
            "other/training.adamw.learning_rate": "%LEARNING_RATE_SCHEDULE",
        },
        LINE,
        "OPTIMIZER was @training.adamw() and is @other/training.adamw(): its state is read as the new one's",
    ),
    "a setting of the optimizer": (
        {"training.adamw.b1": "0.5"},
        LINE,
        "training.adamw.b1 was its default and is 0.5: it holds from here on",
    ),
    "the schedule": (
        {"LEARNING_RATE_SCHEDULE": "@training.warmup_constant()"},
        LINE,
        "the schedule is a function of all updates made, so it jumps to its value at this step",
    ),
    "another optimizer": (
        {"OPTIMIZER": "@training.adafactor()"},
        REFUSAL,
        "does not fit this run's optimizer",
    ),
    "other data": ({"DATA": "'other.jsonl'"}, REFUSAL, "the checkpoint was trained on other data"),
    "another order": (
        {"RANDOM_SEED": "1"},
        REFUSAL,
        "the checkpoint was trained on other data, or in another order",
    ),
    "another vocabulary": (
        {"VOCAB_SIZE": "512"},
        REFUSAL,
        "logits_dense/kernel is 16x384 there and 16x512 here",
    ),
    "another network": ({"models.T5Config.emb_dim": "24"}, REFUSAL, "is 2x16x4x32 there and 2x24x4x32 here"),
}


def train(run, changes) -> int:
    given = SETTINGS | {"MODEL_DIR": f"'{run}'"} | changes
    return main(["train", *FILES, *(f"--gin.{name}={value}" for name, value in given.items())])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, and its data."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.jsonl").write_text('{"inputs": "1+1", "targets": "2"}\n' * 8)
    (folder / "other.jsonl").write_text('{"inputs": "1+2", "targets": "3"}\n' * 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train(folder / "run", {}) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_each_difference_is_said_or_refused(case, trained, tmp_path, monkeypatch, capfd):
    """At the last step already, so that nothing is trained: all is said, or refused, before."""
    changes, code, words = CASES[case]
    monkeypatch.chdir(trained)
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    before = (run / "config.gin").read_text()
    found = train(run, changes)
    said = capfd.readouterr().err
    assert found == code, said
    if code == REFUSAL:
        line = said.strip().splitlines()[-1]
        assert line.startswith("lmirl: ") and words in line
        assert (run / "config.gin").read_text() == before
        return
    assert f"is at step 2 of {changes.get('TRAIN_STEPS', 2)} already: nothing to do" in said
    lines = [line for line in said.splitlines() if "resumed with another setting" in line]
    if words is None:
        assert lines == []
    else:
        assert any(words in line for line in lines), said

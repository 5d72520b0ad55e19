"""Labels through the command: labelled IQLearn, what filters wrong answers, and the learners that refuse them."""

import json

import pytest
from etils import epath

from lmirl_jax.cli import main
from lmirl_jax.training.metric_writers import read_metrics

SIZES = ["--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}", "--gin.EVALUATIONS=[]"]
SIZES += ["--gin.BATCH_SIZE=8", "--gin.WARMUP_STEPS=0", "--gin.DROPOUT_RATE=0.0", "--gin.EVAL_BATCH_SIZE=8"]


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    rows = [
        {"inputs": f"{n}+1", "targets": str(n + 1 + wrong), "label": not wrong}
        for n in range(4)
        for wrong in (0, 3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(name, folder, samples, *more, steps):
    files = [f"--gin_file=gin/runs/{name}.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
    flags = [f"--gin.DATA='{samples}'", f"--gin.MODEL_DIR='{folder}'", f"--gin.TRAIN_STEPS={steps}"]
    return main(["train", *files, *SIZES, "--gin.MIXTURE_OR_TASK_NAME=None", *more, *flags])


def metrics(folder):
    return read_metrics(epath.Path(folder) / "metrics.jsonl")


def test_right_answers_are_imitated_and_the_rewards_of_all_are_learnt(samples, tmp_path):
    more = "--gin.LEARNING_RATE=3e-3", "--gin.REWARD_SCALE=2.0"
    assert run("labelled_iqlearn", tmp_path / "run", samples, *more, steps=25) == 0
    first, *_, last = metrics(tmp_path / "run")
    assert abs(first["train/loss"] - first["train/loss_mle"] - first["train/loss_td"]) < 1e-4
    assert last["train/loss_mle"] < first["train/loss_mle"] / 2
    scores = tmp_path / "scores.jsonl"
    flags = [
        f"--gin.CHECKPOINT_PATH='{tmp_path / 'run'}'",
        f"--gin.DATA='{samples}'",
        f"--gin.OUTPUT_PATH='{scores}'",
    ]
    assert main(["score", "--gin_file=gin/runs/score.gin", *flags]) == 0
    totals = [sum(json.loads(line)["log_prob"]) for line in scores.read_text().splitlines()]
    assert sum(totals[::2]) / 4 > sum(totals[1::2]) / 4 + 0.5


def test_an_objective_without_rewards_learns_the_right_ones_alone(samples, tmp_path):
    """The first loss is that of a file without the wrong ones."""
    right = tmp_path / "right.jsonl"
    lines = [line for line in samples.read_text().splitlines() if json.loads(line)["label"]]
    right.write_text("".join(line.replace(', "label": true', "") + "\n" for line in lines * 2))
    mle = "--gin_file=gin/objectives/mle.gin"
    for name, path in {"both": samples, "right": right}.items():
        assert run("finetune", tmp_path / name, path, mle, steps=1) == 0
    both, alone = (metrics(tmp_path / name)[0]["train/loss"] for name in ("both", "right"))
    assert abs(both - alone) < 1e-4


@pytest.mark.parametrize("name", ["online_iqlearn", "gail"])
def test_learners_that_would_imitate_all_of_them_refuse(name, samples, tmp_path, capfd):
    assert run(name, tmp_path / "run", samples, steps=1) == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "takes every answer for a right one, and the data have labels" in line
    assert not (tmp_path / "run").exists()


def test_the_first_batch_is_shown_with_its_labels(samples, tmp_path, capfd):
    files = ["--gin_file=gin/runs/labelled_iqlearn.gin", "--gin_file=gin/models/t5_1_1/tiny.gin", *SIZES]
    flags = [f"--gin.DATA='{samples}'", f"--gin.MODEL_DIR='{tmp_path / 'run'}'", "--gin.TRAIN_STEPS=1"]
    assert main(["doctor", *files, *flags, "--show_batch", "--num_examples=8"]) == 0
    out = capfd.readouterr().out
    assert out.count("the answer is labelled right") == out.count("the answer is labelled wrong") == 4


@pytest.mark.parametrize("label", [{}, {"label": 1}, {"label": float("nan")}])
def test_data_without_labels_are_refused(label, tmp_path, capfd):
    """They would all be imitated, wrong ones too."""
    (tmp_path / "data.jsonl").write_text(json.dumps({"inputs": "1+1", "targets": "3"} | label))
    assert run("labelled_iqlearn", tmp_path / "run", tmp_path / "data.jsonl", steps=1) == 1
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert "the data have no labels: write true or false as 'label' in every row" in error
    assert not (tmp_path / "run").exists()
    if label == {"label": 1}:
        named = "--gin.COLUMNS={'label': 'label'}"
        assert run("labelled_iqlearn", tmp_path / "run", tmp_path / "data.jsonl", named, steps=1) == 0

"""gin/runs/dpo.gin as users run it: all parameters of a T5, and adapters on a decoder-only model."""

import json
import math

import pytest
from etils import epath

from lmirl_jax.cli import main
from lmirl_jax.training.metric_writers import read_metrics
from tests.pretrained import GOLDEN

pytestmark = pytest.mark.slow


def bind(**macros: object) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def train(run, *files, steps, **macros):
    """The metrics of a run of gin/runs/dpo.gin with these files, of which the first may be another run's."""
    given = bind(
        MODEL_DIR=str(run), TRAIN_STEPS=steps, LOG_PERIOD=1, WARMUP_STEPS=0, EVAL_BATCH_SIZE=8, **macros
    )
    assert main(["train", *(f"--gin_file={file}" for file in files or ["gin/runs/dpo.gin"]), *given]) == 0
    return read_metrics(epath.Path(run) / "metrics.jsonl")


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """Sums of which the right one is chosen, and a run of some steps on the chosen ones."""
    folder = tmp_path_factory.mktemp("sums")
    data = folder / "sums.jsonl"
    rows = [
        {"prompt": f"{a}+{b}", "chosen": str(a + b), "rejected": str(a + b + 1)}
        for a in range(6)
        for b in range(6)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = "gin/runs/finetune.gin", "gin/models/t5_1_1/tiny.gin", "gin/objectives/mle.gin"
    sizes = {"TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8}, "BATCH_SIZE": 16}
    base = folder / "base"
    train(base, *files, steps=5, DATA=str(data), LEARNING_RATE=1e-3, EVALUATIONS=[], **sizes)
    return {"DATA": str(data), "INITIAL_CHECKPOINT_PATH": str(base), "LEARNING_RATE": 1e-3}


def test_preferences_are_learnt_measured_and_resumed(sums, tmp_path):
    """The reference is a part of the checkpoint: the run that stops and goes on is the one that never stopped."""
    settings = sums | {"VALIDATION_SHARE": 0.25, "EVAL_PERIOD": 4, "CHECKPOINT_PERIOD": 4}
    whole = train(tmp_path / "whole", steps=8, **settings)
    assert abs(whole[0]["train/loss"] - math.log(2)) < 1e-4 and abs(whole[0]["train/margin"]) < 1e-3
    first, last = (row for row in whole if "eval/preferences/loss" in row)
    assert last["train/margin"] > 1 and last["eval/preferences/margin"] > first["eval/preferences/margin"] > 0
    assert 0 < last["eval/preferences/examples"] < 36
    train(tmp_path / "parts", steps=4, **settings)
    parts = train(tmp_path / "parts", steps=8, **settings)
    timing = "timing/"
    for row, expected in zip(parts, whole, strict=True):
        assert {k: v for k, v in row.items() if not k.startswith(timing)} == {
            k: v for k, v in expected.items() if not k.startswith(timing)
        }


@pytest.mark.parametrize("preference", ["hinge", "ipo"])
def test_the_other_losses(preference, sums, tmp_path):
    flags = [f"--gin.PREFERENCE=@objectives.{preference}"]
    settings = {**sums, "LEARNING_RATE": 3e-4, "EVALUATIONS": []}
    given = bind(MODEL_DIR=str(tmp_path / "run"), TRAIN_STEPS=12, WARMUP_STEPS=0, **settings)
    assert main(["train", "--gin_file=gin/runs/dpo.gin", *flags, *given]) == 0
    rows = read_metrics(epath.Path(tmp_path / "run") / "metrics.jsonl")
    # h is 0 at first: max(0, 1 - 0) and (0 - 1 / (2 beta)) ** 2.
    assert abs(rows[0]["train/loss"] - {"hinge": 1, "ipo": 25}[preference]) < 1e-2
    assert rows[-1]["train/margin"] > 0.05


def test_iqlearn_with_a_preference_term(sums, tmp_path):
    flags = ["--gin.OBJECTIVE=@objectives.iqlearn", *bind(TD_WEIGHT=0.1, DEMONSTRATION_WEIGHT=1.0)]
    flags += bind(PREFERENCE_WEIGHT=0.1, SCORE="return", REFERENCE_FREE=True)
    given = bind(MODEL_DIR=str(tmp_path / "run"), TRAIN_STEPS=4, WARMUP_STEPS=0, EVALUATIONS=[], **sums)
    assert main(["train", "--gin_file=gin/runs/dpo.gin", *flags, *given]) == 0
    rows = read_metrics(epath.Path(tmp_path / "run") / "metrics.jsonl")
    for row in rows:
        parts = row["train/loss_demonstrations"] + 0.1 * row["train/loss_preference"]
        assert abs(row["train/loss"] - parts) < 1e-4
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]


def test_adapters_on_a_decoder_only_model(tmp_path):
    """The reference is the base without the adapters."""
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 8)
    files = "gin/runs/dpo.gin", "gin/adapters/lora.gin"
    settings = {"DATA": str(data), "INITIAL_CHECKPOINT_PATH": str(GOLDEN / "llama"), "EVALUATIONS": []}
    sizes = {"TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 16}, "BATCH_SIZE": 8}
    rows = train(tmp_path / "run", *files, steps=6, LEARNING_RATE=1e-2, **settings, **sizes)
    assert abs(rows[0]["train/loss"] - math.log(2)) < 1e-4 and rows[-1]["train/margin"] > 0.05

"""All that works on T5 works on a decoder-only model, from the same gin files with another model file."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax.cli import main
from lmirl_jax.training.metric_writers import read_metrics

pytestmark = pytest.mark.slow

MODEL = str(pathlib.Path(__file__).with_name("decoder_only.gin"))
SMALL = [
    f"--gin_file={MODEL}",
    "--gin.BATCH_SIZE=8",
    "--gin.EVAL_BATCH_SIZE=8",
    "--gin.EVALUATOR_NUM_EXAMPLES=8",
    "--gin.EVAL_STEPS=1",
]
# One of each form: tests/training/test_equalities.py trains by all objectives.
OBJECTIVES = ("mle", "gem", "iqlearn")


def bind(**macros: object) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def train(name: str, run: pathlib.Path, *more: str, steps: int = 2, **macros: object) -> list[dict]:
    """The metrics of a run of gin/runs/NAME.gin."""
    given = bind(MODEL_DIR=str(run), TRAIN_STEPS=steps, **macros)
    assert main(["train", f"--gin_file=gin/runs/{name}.gin", *SMALL, *more, *given]) == 0
    return read_metrics(epath.Path(run) / "metrics.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """Three steps of IQLearn, with evaluations."""
    run = tmp_path_factory.mktemp("base") / "run"
    last = train("number_paths", run, steps=3)[-1]
    assert {"eval/loss", "eval/number_paths/accuracy", "eval/number_paths/sampled/self_bleu"} <= set(last)
    return str(run)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_form_of_objective(objective, tmp_path):
    more = [f"--gin_file=gin/objectives/{objective}.gin", "--gin.EVALUATIONS=[]"]
    first, second = train("number_paths", tmp_path / "run", *more, LEARNING_RATE=1e-2, WARMUP_STEPS=0)
    assert math.isfinite(second["train/loss"]) and second["train/loss"] != first["train/loss"]


@pytest.mark.parametrize("name", ["online_iqlearn", "gail", "grpo", "gad", "rl_from_reward"])
def test_every_learner(name, base, tmp_path):
    macros: dict[str, object] = {"INITIAL_CHECKPOINT_PATH": base}
    if name in ("grpo", "gad", "rl_from_reward"):
        macros["SAMPLE_BATCH_SIZE"] = 32
    if name == "rl_from_reward":
        macros["REWARD_CHECKPOINT_PATH"] = base
    last = train(name, tmp_path / "run", "--gin.EVALUATIONS=[]", **macros)[-1]
    assert math.isfinite(last["train/loss"]) and last["train/samples/length"] > 0


def test_answers_scores_and_what_is_made_of_them(base, tmp_path):
    """infer, score with its reference, filter and eval; the log-probabilities of sampling are those of scoring."""
    answers, scored, kept = (tmp_path / name for name in ("answers.jsonl", "scored.jsonl", "kept.jsonl"))
    count = {"EVALUATOR_NUM_EXAMPLES": 8, "EVAL_BATCH_SIZE": 8}
    macros = {"OUTPUT_PATH": str(answers), "NUM_SAMPLES": 2, "TEMPERATURE": 1.0, "INFER_NUM_EXAMPLES": 8}
    given = bind(**macros, CHECKPOINT_PATH=base, EVAL_BATCH_SIZE=8)
    assert main(["infer", "--gin_file=gin/runs/infer.gin", *given]) == 0
    macros = {"CHECKPOINT_PATH": base, "DATA": str(answers), "OUTPUT_PATH": str(scored)}
    assert main(["score", "--gin_file=gin/runs/score.gin", *bind(**macros, SCORE_BATCH_SIZE=8)]) == 0
    drawn = [json.loads(line) for line in answers.read_text().splitlines()]
    lines = [json.loads(line) for line in scored.read_text().splitlines()]
    assert len(drawn) == 8 and len(lines) == 16
    log_probs = [tokens for line in drawn for tokens in line["token_log_probs"]]
    for line, expected in zip(lines, log_probs, strict=True):
        np.testing.assert_allclose(line["log_prob"], expected, atol=1e-4)
        assert line["v_0"] == line["v"][0]
    macros = {"SCORED": str(scored), "OUTPUT_PATH": str(kept), "KEEP": 0.5, "TRUNCATED": "rank"}
    assert main(["filter", "--gin_file=gin/runs/filter.gin", *bind(**macros)]) == 0
    assert len(kept.read_text().splitlines()) == 8
    assert main(["eval", "--gin_file=gin/runs/eval.gin", *bind(CHECKPOINT_PATH=base, **count)]) == 0


def test_sweep_and_report(base, tmp_path):
    macros = {"RUNS": {"IQLearn": [base]}, "NUM_SAMPLES": 2, "EVALUATOR_NUM_EXAMPLES": 8}
    sweep = bind(**macros, OUTPUT_DIR=str(tmp_path / "front"), TEMPERATURES=[0.5, 1.0], EVAL_BATCH_SIZE=8)
    assert main(["sweep", "--gin_file=gin/runs/sweep.gin", *sweep]) == 0
    assert (tmp_path / "front" / "report.html").stat().st_size > 1000
    report = bind(**macros, OUTPUT_DIR=str(tmp_path / "trust"), EVAL_BATCH_SIZE=8, SCORE_BATCH_SIZE=8)
    assert main(["report", "--gin_file=gin/runs/report.gin", *report]) == 0
    assert (tmp_path / "trust" / "report.html").stat().st_size > 1000


def test_answers_depend_neither_on_the_batch_nor_on_the_prompts_beside_them(base):
    """Prompts of unequal length, alone and together, greedy and sampled."""
    model = lmirl_jax.load(base)
    prompts = ["1 to 9", "2 to 14 and a longer prompt", "3"]
    together = model.generate(prompts, max_new_tokens=12)
    assert together == [model.generate(prompt, max_new_tokens=12) for prompt in prompts]
    ids = model.generate([[5, 6, 7], [8] * 20], max_new_tokens=12)
    assert ids == [model.generate(row, max_new_tokens=12) for row in ([5, 6, 7], [8] * 20)]


@pytest.mark.e2e
@pytest.mark.usefixtures("on_eight_devices")
def test_two_processes_give_what_one_does(tmp_path):
    """2 processes of 4 devices against this process of 8: offline and online in one learner."""
    rows = [{"inputs": f"{n}+{n % 5}", "targets": str(n + n % 5)} for n in range(40)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"DATA": str(tmp_path / "sums.jsonl"), "TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8}}
    small |= {"MIXTURE_OR_TASK_NAME": None, "EVALUATIONS": [], "TRAIN_STEPS": 2}
    files = ["--gin_file=gin/runs/online_iqlearn.gin", *SMALL, "--gin_file=gin/meshes/fsdp.gin"]

    def command(run: pathlib.Path) -> list[str]:
        return ["train", *files, *bind(MODEL_DIR=str(run), **small)]

    assert main(command(tmp_path / "whole")) == 0
    launcher = pathlib.Path(__file__).parents[2] / "launch/processes.py"
    done = subprocess.run(
        [sys.executable, "-P", str(launcher), "2", *command(tmp_path / "parts")],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    parts, whole = (read_metrics(epath.Path(tmp_path) / run / "metrics.jsonl") for run in ("parts", "whole"))
    for ours, theirs in zip(parts, whole, strict=True):
        for name in ("loss", "loss_mle", "reward", "entropy", "samples/entropy", "samples/length"):
            key = f"train/{name}"
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, err_msg=key)

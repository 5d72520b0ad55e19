"""The main job through its command, as a user types it: train, kill, resume, evaluate, answer; in one process and in two."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from lmirl_jax.cli import main
from lmirl_jax.evaluation.front import with_interval

pytestmark = pytest.mark.eight_devices

SMALL = [
    "--gin_file=gin/runs/number_paths.gin",
    "--gin.CHECKPOINT_PERIOD=2",
    "--gin.EVAL_STEPS=1",
    "--gin.EVALUATOR_NUM_EXAMPLES=8",
    "--gin.EVAL_BATCH_SIZE=8",
    "--gin.BATCH_SIZE=16",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
]


def environment(devices: int) -> dict[str, str]:
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}


def lmirl(
    *arguments: str, devices: int = 1, folder: pathlib.Path | None = None
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "lmirl_jax", *arguments]
    return subprocess.run(
        command, env=environment(devices), cwd=folder, capture_output=True, text=True, timeout=300
    )


def of_training(run: pathlib.Path, steps: int, *more: str) -> list[str]:
    return ["train", *SMALL, f"--gin.MODEL_DIR='{run}'", f"--gin.TRAIN_STEPS={steps}", *more]


def losses(run: pathlib.Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["train/loss"] for line in lines}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """Four steps on a mesh of 8 devices, uninterrupted; in this process, which has as many."""
    folder = tmp_path_factory.mktemp("one process") / "run"
    assert main(of_training(folder, 4, "--gin_file=gin/meshes/fsdp.gin")) == 0
    return folder


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> list[str]:
    """Settings that train on a file, without evaluations: processes start in half the time without TensorFlow."""
    file = tmp_path_factory.mktemp("sums") / "sums.jsonl"
    lines = [json.dumps({"inputs": f"{n}+{n % 5}", "targets": str(n + n % 5)}) for n in range(100)]
    file.write_text("\n".join(lines))
    return ["--gin.MIXTURE_OR_TASK_NAME=None", f"--gin.DATA='{file}'", "--gin.EVALUATIONS=[]"]


@pytest.fixture(scope="module")
def plain(sums, tmp_path_factory) -> pathlib.Path:
    """As `run`, on the file."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert main(of_training(folder, 4, "--gin_file=gin/meshes/fsdp.gin", *sums)) == 0
    return folder


@pytest.mark.slow
def test_what_the_command_leaves(run):
    names = {path.name for path in run.iterdir()}
    assert {"config.gin", "metrics.jsonl", "checkpoints", "inference_eval", "model-info.txt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    written = (run / "inference_eval/number_paths-000004.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in written]
    assert len(rows) == 8 and {"inputs", "targets", "samples", "log_probs"} == set(rows[0])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {
        "eval/loss",
        "eval/number_paths/accuracy",
        "eval/number_paths/sampled/accuracy",
        "eval/number_paths/sampled/self_bleu",
    } <= set(last)


@pytest.mark.e2e
@pytest.mark.slow
def test_one_device_gives_the_losses_of_eight(plain, sums, tmp_path):
    done = lmirl(*of_training(tmp_path / "run", 4, *sums))
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        list(losses(tmp_path / "run").values()), list(losses(plain).values()), rtol=1e-5
    )


@pytest.mark.e2e
@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_resume(plain, sums, repository, tmp_path):
    """2 processes of 4 devices, stopped after 2 steps and started again: the losses of 1 process of 8, step by step.

    That the losses are equal says that every example was used where one process uses it, and once.
    """
    launcher = [sys.executable, "-P", str(repository / "launch/processes.py"), "2"]
    for steps in (2, 4):
        settings = [f"--gin.MODEL_DIR='{tmp_path / 'run'}'", f"--gin.TRAIN_STEPS={steps}"]
        command = [*launcher, "train", *SMALL, "--gin_file=gin/meshes/fsdp.gin", *sums, *settings]
        done = subprocess.run(command, env=environment(4), capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
    assert "from its checkpoint at step 2" in done.stderr
    ours, theirs = losses(tmp_path / "run"), losses(plain)
    assert list(ours) == list(theirs) == [1, 2, 3, 4]
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-6)


@pytest.mark.e2e
@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(plain, sums, tmp_path):
    """SIGKILL in the midst of a long run: the same command with the old total goes on as if nothing had been."""
    folder = tmp_path / "run"
    settings = [
        *SMALL,
        *sums,
        f"--gin.MODEL_DIR='{folder}'",
        "--gin_file=gin/meshes/fsdp.gin",
        "--gin.CHECKPOINT_PERIOD=1",
    ]
    command = [sys.executable, "-P", "-m", "lmirl_jax", "train", *settings, "--gin.TRAIN_STEPS=1000"]
    process = subprocess.Popen(command, env=environment(8), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not (folder / "checkpoints" / "2").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = max(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    assert main(of_training(folder, max(reached, 4), "--gin_file=gin/meshes/fsdp.gin", *sums)) == 0
    ours, theirs = losses(folder), losses(plain)
    assert list(ours)[:4] == [1, 2, 3, 4]
    np.testing.assert_array_equal([ours[step] for step in theirs], list(theirs.values()))


@pytest.mark.slow
def test_eval_and_infer_find_all_in_the_run(run, tmp_path, monkeypatch, capfd):
    """From another folder, on another mesh: the run's own configuration gives model, vocabulary and lengths."""
    monkeypatch.chdir(tmp_path)
    path = f"--gin.CHECKPOINT_PATH='{run}'"
    few = ["--gin.NUM_SAMPLES=2", "--gin.EVAL_BATCH_SIZE=8"]
    sweep = ["--gin.TEMPERATURES=[0.5, 1.0]", "--gin.EVALUATOR_NUM_EXAMPLES=12"]
    assert main(["eval", "--gin_file=gin/runs/eval.gin", path, *few, *sweep]) == 0
    printed = capfd.readouterr().out
    # Checkpoint, over how many of how many prompts, head, two temperatures, what intervals are, and the file.
    assert "self_bleu" in printed and len(printed.splitlines()) == 7
    assert "split validation: the first 12 of " in printed
    cells = json.loads((run / "eval/number_paths-000004.json").read_text())
    assert [cell["temperature"] for cell in cells] == [0.5, 1.0]
    assert len(cells[0]["per_prompt"]["accuracy"]) == 12
    (low, high), value = cells[0]["intervals"]["entropy"], cells[0]["metrics"]["entropy"]
    assert low <= value <= high and with_interval(value, low, high, 3) in printed
    assert main(["infer", "--gin_file=gin/runs/infer.gin", path, *few, "--gin.INFER_NUM_EXAMPLES=9"]) == 0
    printed = capfd.readouterr().out
    rows = [json.loads(line) for line in pathlib.Path(printed.strip()).read_text().splitlines()]
    assert len(rows) == 9 and all(len(row["samples"]) == len(row["log_probs"]) == 2 for row in rows)
    written = (run / "eval/number_paths-000004-T1.jsonl").read_text().splitlines()
    answers = [json.loads(line)["samples"] for line in written]
    assert [row["samples"] for row in rows] == answers[:9]  # the same seed, another batch, another command


def infer(run: pathlib.Path, output: pathlib.Path, *more: str) -> list[str]:
    settings = [f"--gin.CHECKPOINT_PATH='{run}'", f"--gin.OUTPUT_PATH='{output}'", "--gin.EVAL_BATCH_SIZE=8"]
    return ["infer", "--gin_file=gin/runs/infer.gin", *settings, *more]


@pytest.mark.e2e
@pytest.mark.slow
def test_answers_killed_and_resumed_equal_uninterrupted_ones(run, tmp_path, capfd):
    """SIGKILL in the midst; other settings are then refused, and the same ones go on: the same file, byte by byte."""
    (tmp_path / "prompts.txt").write_text("".join(f"{n} {n + 1}\n" for n in range(150)))
    more = [f"--gin.PROMPTS='{tmp_path / 'prompts.txt'}'", "--gin.NUM_SAMPLES=4"]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert main(infer(run, whole, *more)) == 0
    assert "prompt 150/150" in capfd.readouterr().err
    command = [sys.executable, "-P", "-m", "lmirl_jax", *infer(run, killed, *more)]
    process = subprocess.Popen(command, env=environment(8), stderr=subprocess.DEVNULL)
    partial = tmp_path / "killed.jsonl.partial"
    deadline = time.monotonic() + 240
    while not partial.exists() or partial.stat().st_size == 0:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with partial.open("a") as file:
        file.write('{"inputs": "torn')
    assert main(infer(run, killed, *more, "--gin.TOP_P=0.9")) == 1
    assert "begun with TOP_P=1.0, not 0.9" in capfd.readouterr().err.splitlines()[-1]
    assert main(infer(run, killed, *more)) == 0
    assert "goes on after" in capfd.readouterr().err
    assert killed.read_bytes() == whole.read_bytes()
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [row["inputs"] for row in rows] == (tmp_path / "prompts.txt").read_text().splitlines()
    for row in rows:
        for tokens, total, by_token, entropies in zip(
            row["tokens"], row["log_probs"], row["token_log_probs"], row["token_entropies"], strict=True
        ):
            assert len(tokens) == len(by_token) == len(entropies)
            np.testing.assert_allclose(sum(by_token), total, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("TEMPERATURE=-1.0", "TEMPERATURE=-1.0 must be a number of 0 or more"),
        ("TEMPERATURE=0.0", "TEMPERATURE=0 has one answer to a prompt, not NUM_SAMPLES=2"),
        ("TOP_P=0.0", "TOP_P=0.0 must be a number above 0 and at most 1"),
        ("NUM_BEAMS=1", "NUM_SAMPLES=2 of NUM_BEAMS=1"),
        ("PROMPTS='no.txt'", "no file at no.txt"),
        ("OUTPUT_PATH='.'", "is a folder: name a file, such as"),
        ("EVAL_BATCH_SIZE=9", "EVAL_BATCH_SIZE=9"),
    ],
)
def test_each_error_of_infer_is_one_line_and_leaves_nothing(run, setting, expected, tmp_path, capfd):
    output = tmp_path / "out" / "answers.jsonl"
    assert main([*infer(run, output, "--gin.NUM_SAMPLES=2"), f"--gin.{setting}"]) == 1
    news = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("INFO: ")]
    assert len(news) == 1 and expected in news[0], news
    assert not output.parent.exists()


@pytest.mark.slow
def test_no_code_but_a_jsonl_file(tmp_path, monkeypatch, capfd):
    """DATA alone: no validation split, so evaluation is skipped; one target over length is counted and warned about."""
    rows = [{"inputs": f"{n}", "targets": f"{n * n}"} for n in range(40)] + [
        {"inputs": "x", "targets": "y" * 40}
    ]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        *SMALL,
        "--gin.MIXTURE_OR_TASK_NAME=None",
        "--gin.DATA='my.jsonl'",
        "--gin.MODEL_DIR='run'",
        "--gin.TRAIN_STEPS=2",
    ]
    monkeypatch.chdir(tmp_path)
    assert main(["train", *settings]) == 0
    said = capfd.readouterr().err
    assert "1 of 41 targets" in said and "evaluation on it is skipped" in said
    assert not (tmp_path / "run/inference_eval").exists()
    assert main(["train", *settings, "--gin.TRUNCATE=False", "--gin.MODEL_DIR='other'"]) == 1
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1 and "TRUNCATE" in said


ERRORS = {
    "a metric that no evaluation has": (
        ["--gin.BEST_METRIC='eval/number_paths/acuracy'"],
        "did you mean 'eval/number_paths/accuracy'",
    ),
    "patience without a metric": (["--gin.EARLY_STOPPING_PATIENCE=2"], "set BEST_METRIC"),
    "no patience at all": (
        ["--gin.BEST_METRIC='eval/loss'", "--gin.EARLY_STOPPING_PATIENCE=0"],
        "EARLY_STOPPING_PATIENCE=0",
    ),
    "a best checkpoint without evaluations": (
        ["--gin.BEST_METRIC='eval/loss'", "--gin.EVAL_PERIOD=0"],
        "EVAL_PERIOD=0",
    ),
    "a typo in a macro": (["--gin.TRAIN_STEP=5"], "TRAIN_STEPS"),
    "a missing task": (["--gin.MIXTURE_OR_TASK_NAME='number_path'"], "number_paths"),
    "no task and no data": (["--gin.MIXTURE_OR_TASK_NAME=None"], "DATA"),
    "both": (["--gin.DATA='my.jsonl'", "--gin.MIXTURE_OR_TASK_NAME='number_paths'"], "one of"),
    "a vocabulary that is not there": (["--gin.VOCABULARY_PATH='no.model'"], "no.model"),
    "a model with too few words": (["--gin.VOCAB_SIZE=128"], "VOCAB_SIZE"),
    "a batch that the mesh does not divide": (
        ["--gin.BATCH_SIZE=15"],
        "multiple of 8",
    ),
    "a folder that cannot be written": (
        ["--gin.MODEL_DIR='/proc/run'"],
        "cannot write to MODEL_DIR /proc/run",
    ),
    "a type that does not exist": (
        ["--gin.DTYPE='float99'"],
        "DTYPE='float99' must be 'float32' or 'bfloat16'",
    ),
    "a dropout of more than all": (["--gin.DROPOUT_RATE=2.0"], "DROPOUT_RATE=2.0"),
    "an evaluation that the mesh does not divide": (["--gin.EVAL_BATCH_SIZE=9"], "EVAL_BATCH_SIZE=9"),
    "a mesh of the wrong size": (["--gin.sharding.make_mesh.data=3"], "8 device"),
    "a mesh that does not divide the model": (["--gin.sharding.make_mesh.tensor=8"], "heads=4"),
}


@pytest.mark.parametrize("command", ["train", "eval", "infer"])
def test_a_command_without_a_configuration_names_one(command, capfd):
    assert main([command, "--gin.MODEL_DIR='x'"]) == 2
    assert "no configuration: name one, such as --gin_file=gin/runs/" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("case", ERRORS)
def test_each_error_is_one_line(case, tmp_path, capfd, monkeypatch):
    """In this process, which has 8 devices; nothing is left behind in MODEL_DIR."""
    changes, expected = ERRORS[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.jsonl").write_text('{"inputs": "a", "targets": "b"}\n')
    assert main(["train", *SMALL, "--gin.MODEL_DIR='run'", "--gin.TRAIN_STEPS=2", *changes]) == 1
    written = capfd.readouterr().err.splitlines()
    lines = [
        line for line in written if not line.startswith("INFO: tokenising")
    ]  # Once, where no cache has it yet.
    assert len(lines) == 1 and lines[0].startswith("lmirl: "), lines
    assert expected in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "expected"), [("TD_WEIGHT='a'", "TD_WEIGHT='a'"), ("LEARNING_RATE='a'", "LEARNING_RATE='a'")]
)
def test_a_value_of_another_type_is_one_line(setting, expected, sums, tmp_path):
    """In a process of its own: in this one every signature is checked, and a type error comes first."""
    done = lmirl("train", *SMALL, *sums, "--gin.MODEL_DIR='run'", f"--gin.{setting}", folder=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and expected in done.stderr

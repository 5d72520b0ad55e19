"""Runs that keep their best checkpoint and stop early: what stays, where it ends, and the same after being killed."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from lmirl_jax import checkpoints, objectives, training
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, FakeData, mesh_of

SCORES = {1: 0.1, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.6, 7: 0.0, 8: 0.0}


class Scored:
    """Gives the score of the step, and is killed as it measures one step, if that is told."""

    def __init__(self, killed_at: int | None = None):
        self.killed_at, self.steps = killed_at, []

    def check(self, mesh):
        pass

    def metric_names(self):
        return ["eval/score", "eval/other"]

    def __call__(self, graph, params, mesh, model_dir, step):
        if step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps.append(step)
        return {"eval/score": SCORES[step]}


def train(model_dir, train_steps=8, scored=None, best=None, **changes):
    settings = {
        "model": TINY,
        "learner": training.Offline(objectives.mle),
        "optimizer": training.adamw(1e-2),
        "data": FakeData(2),
        "mesh": mesh_of(1, 1, 1, 1),
        "evaluations": [scored or Scored()],
        "eval_period": 1,
        "best": training.BestConfig("eval/score", patience=3) if best is None else best,
        "checkpoint": training.CheckpointConfig(period=3, keep=1),
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), train_steps=train_steps, **settings | changes)


def kept(model_dir):
    return sorted(int(name) for name in os.listdir(model_dir / "checkpoints"))


def lines(model_dir):
    """Those of metrics.jsonl, without times."""
    found = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in found]


def best_states(model_dir):
    return [
        json.loads((model_dir / f"checkpoints/{step}/best/metadata").read_text()) for step in kept(model_dir)
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state = train(folder)
    return folder, jax.device_get(state.params)


def test_stops_when_patience_ends_and_keeps_the_best_and_the_newest(uninterrupted):
    folder, _ = uninterrupted
    assert kept(folder) == [2, 5]
    assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5]
    assert checkpoints.find_checkpoint(str(folder)).name == "5"
    assert checkpoints.find_checkpoint(str(folder / "checkpoints/best")).name == "2"


def test_what_the_log_says(uninterrupted, capfd):
    """And that a run that has stopped stays so, until it is given more patience."""
    folder, _ = uninterrupted
    scored = Scored()
    train(folder, scored=scored)
    said = capfd.readouterr().err.splitlines()
    assert said == [
        f"train: {folder} stopped early at step 5: nothing to do; a higher EARLY_STOPPING_PATIENCE goes on",
        f"train: highest eval/score 0.5 at step 2: {folder}/checkpoints/2",
    ]
    assert scored.steps == []


def test_more_patience_goes_on_as_if_never_stopped(uninterrupted, tmp_path, capfd):
    train(tmp_path)
    capfd.readouterr()
    patient = training.BestConfig("eval/score", patience=4)
    state = train(tmp_path, best=patient)
    assert kept(tmp_path) == [6, 8]  # 6 is the best; 7 was never due
    said = capfd.readouterr().err
    assert f"train: highest eval/score 0.6 at step 6: {tmp_path}/checkpoints/6\n" in said
    assert "stopped early" not in said
    alone = tmp_path / "alone"
    whole = train(alone, best=patient)
    assert kept(alone) == kept(tmp_path) and lines(alone) == lines(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), jax.device_get(whole.params))


@pytest.mark.e2e
@pytest.mark.parametrize("killed_at", [3, 5])
def test_killed_and_resumed_equals_uninterrupted(uninterrupted, tmp_path, repository, killed_at):
    """By SIGKILL, in the midst of an evaluation: of one whose step a checkpoint is due at, and of the last."""
    folder, params = uninterrupted
    program = (
        "import sys, jax, pathlib; jax.config.update('jax_num_cpu_devices', 8)\n"
        "from tests.training.test_best_checkpoints import Scored, train\n"
        "train(pathlib.Path(sys.argv[1]), scored=Scored(int(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(killed_at)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    scored = Scored()
    state = train(tmp_path, scored=scored)
    assert scored.steps[-1] == 5 and 1 not in scored.steps
    assert kept(tmp_path) == kept(folder) and best_states(tmp_path) == best_states(folder)
    assert lines(tmp_path) == lines(folder)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)


def test_without_a_patience_the_best_outlives_the_newest(tmp_path):
    """Where nothing is watched, the newest stay alone; where something is, so does the best, due or not."""
    train(tmp_path / "a", 5, best=training.BestConfig("eval/score", "max"))
    train(tmp_path / "b", 5, best=training.BestConfig("eval/score", "min"), eval_period=2)
    train(tmp_path / "c", 5, best=training.BestConfig())
    assert kept(tmp_path / "a") == [2, 5] and kept(tmp_path / "b") == [5] and kept(tmp_path / "c") == [5]
    with pytest.raises(
        UserError, match=r"no best checkpoint at .*: the run kept none \(BEST_METRIC\); name .*/5"
    ):
        checkpoints.find_checkpoint(str(tmp_path / "c/checkpoints/best"))


def test_another_metric_starts_anew_and_a_run_without_one_can_get_one(tmp_path):
    train(tmp_path, 3, best=training.BestConfig())
    train(tmp_path, 5)
    assert kept(tmp_path) == [4, 5]  # 4 is the best since the metric was named


def test_an_unknown_metric_is_an_error_before_training_starts(tmp_path):
    with pytest.raises(UserError, match=r"BEST_METRIC='eval/scor' .* did you mean 'eval/score'"):
        train(tmp_path / "run", best=training.BestConfig("eval/scor"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="keep=0 must be a whole number of 1 or more"):
        training.CheckpointConfig(keep=0)
    with pytest.raises(UserError, match="eval_period=0 must be a whole number of 1 or more"):
        train(tmp_path / "run", eval_period=0)

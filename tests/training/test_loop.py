"""The trainer as a whole: resumed equals uninterrupted, what a run's folder holds, and what stops it."""

import dataclasses
import json
import os
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest

from lmirl_jax import checkpoints, files, locks, objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, FakeData, FakeIterator, make_batch, mesh_of


def train(model_dir, train_steps=4, **changes):
    settings = {
        "model": TINY,
        "learner": training.Offline(objectives.iqlearn, 0.5),
        "optimizer": training.adamw(1e-2),
        "data": FakeData(),
        "mesh": mesh_of(2, 2, 1, 1),
        "checkpoint": training.CheckpointConfig(period=2),
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), train_steps=train_steps, **settings | changes)


def metrics(model_dir):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_times(lines):
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state = train(folder)
    return folder, jax.device_get(state.params)


def test_what_a_run_leaves(uninterrupted):
    folder, _ = uninterrupted
    assert {"checkpoints", "metrics.jsonl", "model-info.txt"} <= {path.name for path in folder.iterdir()}
    assert sorted(os.listdir(folder / "checkpoints")) == ["2", "4"]
    lines = metrics(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(isinstance(line["step"], int) for line in lines)
    expected = {
        "loss",
        "loss_mle",
        "loss_td",
        "reward",
        "entropy",
        "accuracy",
        "learning_rate",
        "gradient_norm",
    }
    assert expected <= {name.removeprefix("train/") for name in lines[0]}
    assert "timing/target_tokens_per_second" in lines[-1] and "timing/seconds_per_step" not in lines[0]
    for line in lines:
        np.testing.assert_allclose(
            line["train/loss"], line["train/loss_mle"] + line["train/loss_td"], rtol=1e-5
        )
    info = (folder / "model-info.txt").read_text()
    assert "Variable encoder/layers/attention/query/kernel" in info and "Total number of parameters" in info


def test_the_next_batch_is_on_the_devices_before_the_metrics_of_a_step_are_read(tmp_path, monkeypatch):
    """So data and copies cost no time while a step runs: batch 3 is put there while step 2 may still run."""
    events = []

    class Recorded(training.Offline):
        def start(self, setting):
            updates = super().start(setting)

            def step(state, batch):
                events.append("step")
                return updates.step(state, batch)

            return dataclasses.replace(updates, step=step, alarm=lambda metrics: events.append("read"))

    put = sharding.to_global
    monkeypatch.setattr(sharding, "to_global", lambda *given: events.append("put") or put(*given))
    train(tmp_path, 3, learner=Recorded(objectives.mle), checkpoint=training.CheckpointConfig(period=9))
    assert events == ["put", "step", "put", "step", "read", "put", "step", "read", "read"]


def test_waiting_for_data_is_a_share_of_the_step(tmp_path, monkeypatch):
    """By a clock that a batch takes forward by 1 second, and the end of a step by 3."""
    clock, take = [0.0], FakeIterator.__next__

    def wait(seconds):
        clock[0] += seconds

    class Slow(training.Offline):
        def start(self, setting):
            return dataclasses.replace(super().start(setting), alarm=lambda metrics: wait(3))

    clocks = types.SimpleNamespace(monotonic=lambda: clock[0], time=lambda: clock[0])
    for module in ("pending_metrics", "step_clock"):
        monkeypatch.setattr(f"lmirl_jax.training.{module}.time", clocks)
    monkeypatch.setattr(FakeIterator, "__next__", lambda self: wait(1) or take(self))
    train(tmp_path, 3, learner=Slow(objectives.mle), checkpoint=training.CheckpointConfig(period=9))
    # Batches 1 and 2 come before the end of step 1, batch 3 before that of step 2, and none before that of step 3.
    shares = [line.get("timing/data_wait_share") for line in metrics(tmp_path)]
    assert shares == [None, 1 / 4, 0.0]


@pytest.mark.parametrize(
    ("changes", "form"),
    [
        ({}, "dense (48 tokens x 128 words a device)"),
        (
            {
                "learner": training.Offline(objectives.mle, soft_q_config=training.SoftQConfig(block_size=5)),
                "microbatches": 2,
            },
            "blocked, 5 x 128 at a time (24 tokens x 128 words a device)",
        ),
    ],
)
def test_the_log_says_how_soft_q_values_are_read(tmp_path, capfd, changes, form):
    train(tmp_path, train_steps=1, **changes)
    assert f"train: soft Q-values: {form}\n" in capfd.readouterr().err


def test_resumed_equals_uninterrupted(uninterrupted, tmp_path):
    """Stopped after three steps, one after its last checkpoint: step 3 is done again, and written once."""
    folder, params = uninterrupted
    train(tmp_path, train_steps=2)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "train/loss": 99.0}\n{"step": 4, "tr')  # a killed run's last words
    state = train(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)
    assert without_times(metrics(tmp_path)) == without_times(metrics(folder))


def test_schedules_and_moments_go_on_after_a_resume(tmp_path):
    """At a corner each: two updates without lambda, the third with it; a rate that ends with the fourth update."""

    def settings():
        rate = training.warmup_cosine(1e-2, 1, 4, end=1e-3)
        return {
            "optimizer": training.adafactor(rate, min_dim_size_to_factor=16),
            "learner": training.Offline(objectives.iqlearn, training.delayed_constant(0.1, start_step=2)),
            "checkpoint": training.CheckpointConfig(period=1, keep=None),
        }

    whole = train(tmp_path / "whole", 5, **settings())
    for steps in (1, 2, 3, 5):
        parts = train(tmp_path / "parts", steps, **settings())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(parts), jax.device_get(whole))
    for folder in ("whole", "parts"):
        lines = metrics(tmp_path / folder)
        np.testing.assert_allclose(
            [line["train/td_weight"] for line in lines], [0, 0, 0.1, 0.1, 0.1], rtol=1e-6
        )
        # By hand: 1e-2, and 1e-3 + 9e-3 / 2 * (1 + cos(pi / 3)), then of 2 pi / 3, then the end.
        np.testing.assert_allclose(
            [line["train/learning_rate"] for line in lines], [1e-2, 7.75e-3, 3.25e-3, 1e-3, 1e-3], rtol=1e-5
        )


def test_resumed_on_another_mesh(uninterrupted, tmp_path):
    _, params = uninterrupted
    train(tmp_path, train_steps=2)
    state = train(tmp_path, mesh=mesh_of(8, 2, 2, 2))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), jax.device_get(state.params), params
    )


def test_what_a_learner_sees_go_wrong_is_said(tmp_path, capfd):
    class Alarmed(training.Offline):
        def start(self, setting):
            updates = super().start(setting)
            return dataclasses.replace(updates, alarm=lambda metrics: f"the loss is {metrics['loss'] > 0}")

    train(tmp_path, train_steps=1, learner=Alarmed(objectives.mle))
    assert "train: warning: at step 1 the loss is True\n" in capfd.readouterr().err


def test_a_finished_run_is_left_alone(uninterrupted, capfd):
    folder, params = uninterrupted
    before = (folder / "metrics.jsonl").read_text()
    state = train(folder)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)
    assert (folder / "metrics.jsonl").read_text() == before
    assert "at step 4 of 4 already" in capfd.readouterr().err


def test_warm_start_takes_the_parameters_alone(uninterrupted, tmp_path):
    """From another optimizer's checkpoint, given by the run's folder: the first loss is the trained model's."""
    folder, params = uninterrupted
    found = checkpoints.find_checkpoint(str(folder))
    assert found.name == "4" and checkpoints.find_checkpoint(str(found)) == found
    adafactor = training.adafactor(1e-3, min_dim_size_to_factor=8)
    train(tmp_path, train_steps=1, optimizer=adafactor, initial_checkpoint_path=str(folder))
    batch = jax.tree.map(jax.numpy.asarray, make_batch(0, 16))
    graph, _ = build(TINY)
    from flax import nnx

    sums = training.loss_sums(
        nnx.merge(graph, jax.tree.map(jax.numpy.asarray, params)),
        objectives.iqlearn,
        batch,
        jax.numpy.float32(0.5),
    )
    # With dropout in training and without here they are near, and far from a fresh model's.
    fresh = metrics(folder)[0]["train/loss"]
    first = metrics(tmp_path)[0]["train/loss"]
    assert abs(first - float(sums["loss"][0] / sums["loss"][1])) < 0.5 * abs(fresh - first)


def test_keeps_the_newest_and_every_period(tmp_path):
    config = training.CheckpointConfig(period=1, keep=2, keep_period=3)
    train(tmp_path, train_steps=7, checkpoint=config, log_period=3)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "6", "7"]
    assert [line["step"] for line in metrics(tmp_path)] == [1, 3, 6, 7]


def test_evaluations_share_the_line_of_their_step(tmp_path):
    calls = []

    class Measuring:
        def check(self, mesh):
            calls.append("checked")

        def metric_names(self):
            return ["eval/length", "eval/undefined"]

        def __call__(self, graph, params, mesh, model_dir, step):
            calls.append(step)
            return {"eval/length": 3.0, "eval/undefined": float("nan")}

    train(tmp_path, train_steps=3, evaluations=[Measuring()], eval_period=2)
    assert calls == ["checked", 2, 3]
    lines = metrics(tmp_path)
    assert [line.get("eval/length") for line in lines] == [None, 3.0, 3.0]
    assert not any("eval/undefined" in line for line in lines)


def test_the_log_says_over_how_many_of_how_many(tmp_path, capfd):
    class Counted:
        def check(self, mesh):
            pass

        def metric_names(self):
            return ["eval/t/accuracy", "eval/t/prompts"]

        def __call__(self, graph, params, mesh, model_dir, step):
            return {"eval/t/accuracy": 0.03, "eval/t/prompts": 100.0}

        def describe_counts(self, metrics):
            return f"the first {metrics['eval/t/prompts']:.0f} of 150 prompts"

    train(tmp_path, train_steps=1, evaluations=[Counted()], eval_period=1)
    said = "evaluated at step 1: eval/t/accuracy=0.03 over the first 100 of 150 prompts\n"
    assert said in capfd.readouterr().err
    assert metrics(tmp_path)[-1]["eval/t/prompts"] == 100


class Interrupting(FakeIterator):
    """Sends this process a signal while its third batch is waited for, which then never comes."""

    def __next__(self):
        if self._next == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return super().__next__()


class InterruptingData(FakeData):
    def iterator(self, rows):
        return Interrupting(self.batch_size, rows)


def test_a_signal_saves_and_stops_and_the_same_call_goes_on(uninterrupted, tmp_path):
    folder, params = uninterrupted
    config = training.CheckpointConfig(period=100)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 2, which is saved") as stopped:
        train(tmp_path, data=InterruptingData(), checkpoint=config)
    assert stopped.value.exit_code == 75
    assert os.listdir(tmp_path / "checkpoints") == ["2"]
    state = train(tmp_path, checkpoint=config)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)
    assert without_times(metrics(tmp_path)) == without_times(metrics(folder))


class InterruptedEvaluation:
    """Sends this process a signal in its first call, which then never ends."""

    calls = 0

    def check(self, mesh):
        pass

    def metric_names(self):
        return ["eval/length"]

    def __call__(self, graph, params, mesh, model_dir, step):
        self.calls += 1
        if self.calls == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        return {"eval/length": float(step)}


def test_a_signal_ends_an_evaluation_which_is_made_up_for(uninterrupted, tmp_path):
    """All is as if it had not been interrupted: the metrics of the step, those of the evaluation, and which one is the best."""
    _, params = uninterrupted
    evaluation = InterruptedEvaluation()
    best = training.BestConfig("eval/length", "min")
    changes = {"evaluations": [evaluation], "eval_period": 2, "best": best}
    config = training.CheckpointConfig(period=100, keep=1)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 2, which is saved") as stopped:
        train(tmp_path, checkpoint=config, **changes)
    assert stopped.value.exit_code == 130
    assert [line["step"] for line in metrics(tmp_path)] == [1]
    state = train(tmp_path, checkpoint=config, **changes)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)
    assert [line.get("eval/length") for line in metrics(tmp_path)] == [None, 2.0, None, 4.0]
    assert all("train/loss" in line for line in metrics(tmp_path))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_steps": 0}, "train_steps=0 must be a whole number of 1 or more"),
        ({"data": FakeData(15)}, r"BATCH_SIZE=15 .* multiple of 2 \(such as 14 or 16\)"),
        ({"microbatches": 3}, r"BATCH_SIZE=16 .* 3 microbatches.*multiple of 6"),
        ({"initial_checkpoint_path": "/nowhere"}, "no checkpoint at /nowhere.*does not exist"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, changes, message):
    """No folder is left behind."""
    with pytest.raises(UserError, match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written():
    with pytest.raises(UserError, match="cannot write to MODEL_DIR /proc/run"):
        train("/proc/run")
    for nothing in (None, ""):
        with pytest.raises(UserError, match="is no path: name a folder that you may write to"):
            files.prepare_directory(nothing, "OUTPUT_DIR")


def test_another_model_or_optimizer_in_the_same_folder(uninterrupted):
    folder, _ = uninterrupted
    wider = dataclasses.replace(TINY, vocab_size=256)
    with pytest.raises(UserError, match=r"logits_dense/kernel is 16x128 there and 16x256 here; .*vocabulary"):
        train(folder, train_steps=5, model=wider)
    with pytest.raises(UserError, match="does not fit this run's optimizer"):
        train(folder, train_steps=5, optimizer=training.adafactor(1e-3, min_dim_size_to_factor=8))


def test_a_second_run_keeps_out(tmp_path):
    busy = pytest.raises(UserError, match="another run is at work in MODEL_DIR")
    with locks.lock_directory(files.absolute_path(tmp_path), "MODEL_DIR"), busy:
        train(tmp_path)
    train(tmp_path, train_steps=1)


def test_a_disk_without_room_for_a_checkpoint(tmp_path, monkeypatch):
    """Said before anything is written; with room again, the same call goes on."""
    full = type("Usage", (), {"free": 1000})()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(UserError, match=r"checkpoint of step 2 needs [\d.]+ MB and .* has 0\.0 MB left"):
            train(tmp_path)
    assert os.listdir(tmp_path / "checkpoints") == []
    train(tmp_path, train_steps=2)

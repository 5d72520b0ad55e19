"""metrics.jsonl and TensorBoard events: what is written, what is left out, what a killed run left behind."""

import contextlib
import json
import os
import subprocess
import sys
import time

import pytest
from etils import epath
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal import datastore

from lmirl_jax import objectives, training
from lmirl_jax.training import metric_writers
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, FakeData, mesh_of


def test_undefined_values_are_left_out(tmp_path):
    path = epath.Path(tmp_path) / "metrics.jsonl"
    writer = metric_writers.JsonlWriter(path, 0)
    writer.write(1, {"train/loss": 1.5, "train/reward": float("nan"), "x": float("inf")})
    assert json.loads(path.read_text()) == {"step": 1, "train/loss": 1.5}  # written at once, not at the end
    writer.close()


def test_lines_after_the_checkpoint_are_dropped(tmp_path):
    path = epath.Path(tmp_path) / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"st')
    writer = metric_writers.JsonlWriter(path, 2)
    writer.write(3, {"a": 30.0})
    writer.close()
    assert metric_writers.read_metrics(path) == [
        {"step": 1, "a": 1},
        {"step": 2, "a": 2},
        {"step": 3, "a": 30.0},
    ]


def test_tensorboard_reads_what_is_written(tmp_path):
    writer = metric_writers.TensorBoardWriter(epath.Path(tmp_path))
    writer.write(3, {"train/loss": 0.25, "undefined": float("nan")})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["tensors"] + events.Tags()["scalars"] == ["train/loss"]


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path):
    """Steps 4 to 6 were logged and not saved: the run that goes on from step 3 logs them again."""
    first = metric_writers.TensorBoardWriter(epath.Path(tmp_path))
    for step in range(1, 7):
        first.write(step, {"train/loss": float(step)})
    first.close()
    time.sleep(1.1)  # Event files are read in the order of the second in their names.
    second = metric_writers.TensorBoardWriter(epath.Path(tmp_path), from_step=3)
    for step in range(4, 8):
        second.write(step, {"train/loss": 10.0 * step})
    second.close()
    events = EventAccumulator(str(tmp_path)).Reload().Tensors("train/loss")
    found = [(event.step, event.tensor_proto.float_val[0]) for event in events]
    assert found == [(1, 1), (2, 2), (3, 3), (4, 40), (5, 50), (6, 60), (7, 70)]


def test_a_line_that_is_nested_too_deeply_is_dropped(tmp_path):
    path = epath.Path(tmp_path) / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n' + "[" * 100_000 + "\n")
    metric_writers.JsonlWriter(path, 2).close()
    assert metric_writers.read_metrics(path) == [{"step": 1, "a": 1}]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    metric_writers.open_writers(epath.Path(tmp_path), 0, tensorboard=True, wandb_project=None).write(
        1, {"a": 1.0}
    )
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_an_extra_and_missed_before_a_folder_is_made(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"WANDB_PROJECT='project': .*pip install 'lmirl_jax\[wandb\]'$"):
        training.train(
            model_dir=str(tmp_path / "run"),
            train_steps=1,
            model=TINY,
            learner=training.Offline(objectives.mle),
            optimizer=training.adamw(1e-2),
            data=FakeData(),
            mesh=mesh_of(1, 1, 1, 1),
            wandb_project="project",
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.e2e
def test_a_project_of_wandb_holds_what_metrics_jsonl_holds(tmp_path):
    """`lmirl train` with WANDB_PROJECT, in wandb's offline mode: what it would upload later lies in a file."""
    settings = {"MODEL_DIR": f"'{tmp_path}/run'", "TRAIN_STEPS": 2, "EVALUATIONS": [], "BATCH_SIZE": 4}
    command = [sys.executable, "-P", "-m", "lmirl_jax", "train", "--gin_file=gin/runs/number_paths.gin"]
    command += [f"--gin.{name}={value}" for name, value in settings.items()]
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    done = subprocess.run(
        [*command, "--gin.WANDB_PROJECT='my_project'"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    logged, run = [], None
    with contextlib.closing(datastore.DataStore()) as store:
        store.open_for_scan(str(next(folder.glob("*.wandb"))))
        while (content := store.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "run":
                run = record.run
            elif record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                logged.append({name: json.loads(value) for name, value in items.items()})
    assert run is not None and (run.project, run.display_name) == ("my_project", "run")
    lines = metric_writers.read_metrics(epath.Path(tmp_path) / "run/metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2] and len(logged) == 2
    for line, found in zip(lines, logged, strict=True):
        assert found["_step"] == line["step"]
        assert {name: found[name] for name in line if name != "step"} == {
            name: value for name, value in line.items() if name != "step"
        }

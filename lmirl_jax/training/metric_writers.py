"""Writes metrics: always to a JSONL file, and to TensorBoard events if TensorBoard is installed. Only process 0 writes."""

import importlib.util
import json
import math
import sys
import time
import types
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from etils import epath

from lmirl_jax import files
from lmirl_jax.training.event_files import drop_events_after, event_messages
from lmirl_jax.types import UserError


@runtime_checkable
class MetricWriter(Protocol):
    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlWriter:
    """Writes one JSON object in each line: an integer `step` and numbers. Undefined values are left out; there is no NaN.

    At a start from `step`, the lines of later steps are dropped: a run that was killed after its last checkpoint repeats them.
    """

    def __init__(self, path: epath.Path, from_step: int):
        _drop_lines_after(path, from_step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: epath.Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _drop_lines_after(path: epath.Path, step: int) -> None:
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                lines.append(line + "\n")
        except (ValueError, KeyError, TypeError, RecursionError):
            # The last line is incomplete where a run was killed.
            continue
    with files.open_atomic(path) as file:
        file.writelines(lines)


class TensorBoardWriter:
    """Writes TensorBoard scalars with tensorboard's own writer, which needs no TensorFlow on a disk.

    At a start from `step`, the events of later steps are dropped, as in `JsonlWriter`, and the start of a session is logged, at
    which a running TensorBoard drops them too.
    """

    def __init__(self, folder: epath.Path, from_step: int = 0):
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if "://" not in str(folder):
            # If this module is present, TensorBoard writes without TensorFlow. Buckets need TensorFlow.
            sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
        drop_events_after(folder, from_step)
        messages = event_messages()
        self._event, self._summary = messages.Event, scalar_pb
        self._writer = EventFileWriter(str(folder))
        self._add(from_step + 1, session_log=messages.SessionLog(status=messages.SessionLog.START))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):
                self._add(step, summary=self._summary(name, value))

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event(step=step, wall_time=time.time(), **content))

    def close(self) -> None:
        self._writer.close()


class WandbWriter:
    """Writes to Weights & Biases (the extra `wandb`). W&B's environment variables apply, such as WANDB_MODE=offline."""

    def __init__(self, project: str, name: str | None = None):
        check_wandb(project)
        import wandb

        self._run = wandb.init(project=project, name=name)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str | None) -> None:
    """Raises a UserError if a project of W&B is given, but W&B is not installed."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"WANDB_PROJECT={project!r}: metrics to W&B need the extra: pip install 'lmirl_jax[wandb]'"
        )


class Writers:
    """Joins several writers into one."""

    def __init__(self, writers: list[MetricWriter]):
        self._writers = writers

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for writer in self._writers:
            writer.write(step, metrics)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


def open_writers(directory: epath.Path, step: int, tensorboard: bool, wandb_project: str | None) -> Writers:
    """Opens the writers of a run that continues from `step`; processes other than the first get none."""
    if jax.process_index() != 0:
        return Writers([])
    writers: list[MetricWriter] = [JsonlWriter(directory / "metrics.jsonl", step)]
    if tensorboard:
        writers.append(TensorBoardWriter(directory, step))
    if wandb_project is not None:
        writers.append(WandbWriter(wandb_project, directory.name))
    return Writers(writers)

"""Removes from TensorBoard's event files the events that a resumed run will log again."""

import importlib
from typing import Any

from etils import epath


def event_messages() -> Any:
    """The module with the messages of event files; protobuf makes its classes when it is imported."""
    return importlib.import_module("tensorboard.compat.proto.event_pb2")


def drop_events_after(folder: epath.Path, step: int) -> None:
    """Rewrites the event files of a folder without the events of steps above `step`; each file is replaced whole.

    Readers treat the start of a session differently: TensorBoard drops the events that it replaces, but its EventAccumulator
    drops only some kinds of events. Files in a bucket are not changed.
    """
    if "://" in str(folder):
        return
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.name, reverse=True):
        first = _drop_from_file(path, step)
        if first is not None and first <= step:
            # Files are read from the newest to the oldest, and older files end before this one begins.
            return


def _drop_from_file(path: epath.Path, step: int) -> int | None:
    """Drops the events after the step from one file; returns the step of its first metrics, None without any."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.summary.writer.record_writer import RecordWriter

    parse = event_messages().Event.FromString
    records, first, dropped = [], None, 0
    for record in RawEventFileLoader(str(path)).Load():
        event = parse(record)
        if not event.HasField("summary"):
            records.append(record)
            continue
        first = event.step if first is None else first
        if event.step <= step:
            records.append(record)
        else:
            dropped += 1
    if dropped:
        temporary = path.parent / f".{path.name}.tmp"
        with open(temporary, "wb") as file:
            writer = RecordWriter(file)
            for record in records:
                writer.write(record)
        temporary.replace(path)
    return first

"""A file of JSON lines, one for each answer, that all processes make and the first one writes; it outlives a kill."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
from etils import epath

from lmirl_jax import checkpoints, configuration, files
from lmirl_jax.cli.processes import from_first_process, wait_for_all
from lmirl_jax.data.formats import check_output_name
from lmirl_jax.training.progress import Progress
from lmirl_jax.types import UserError

# Macros of files that infer and score read.
INPUTS = ("PROMPTS", "DATA", "VALIDATION_DATA", "VOCABULARY_PATH")
Answer = TypeVar("Answer")


def output_path(
    given: str | None, checkpoint: epath.Path, folder: str, stem: str, parquet: bool = False
) -> epath.Path:
    """Returns OUTPUT_PATH as an absolute path, or the default: a file in the folder of the checkpoint's run.

    Args:
        given: OUTPUT_PATH.
        checkpoint: the folder of the checkpoint.
        folder: the name of the folder in MODEL_DIR.
        stem: what the file's name begins with, before the step.
        parquet: whether the file may be Parquet.

    Raises:
        UserError: the path is a folder, or its name is that of another format.
    """
    name = f"{stem}-{checkpoints.step_of(checkpoint):06}.jsonl"
    if not given:
        return checkpoints.output_folder(checkpoint, folder, "OUTPUT_PATH") / name
    path = files.absolute_path(given)
    if path.is_dir():
        raise UserError(f"OUTPUT_PATH={str(path)!r} is a folder: name a file, such as {str(path / name)!r}")
    check_output_name(path, "OUTPUT_PATH", parquet)
    return path


def check_inputs(checkpoint: epath.Path, **more: Any) -> None:
    """Raises a UserError where OUTPUT_PATH is a file that the command reads.

    Args:
        checkpoint: whose run's files are read too.
        more: further files by the names of their settings.
    """
    output = configuration.macro("OUTPUT_PATH", None)
    if output:
        run = checkpoints.run_folder(checkpoint)
        of_run = {}
        if run is not None:
            of_run = {f"the run's {name}": run / name for name in ("config.gin", "metrics.jsonl")}
        inputs = {name: configuration.macro(name, None) for name in INPUTS}
        files.check_no_input([output], {**inputs, **of_run, **more}, "OUTPUT_PATH")


def write_lines(
    path: epath.Path,
    settings: Mapping[str, Any],
    answers: Callable[[int], Iterator[Answer]],
    row: Callable[[Answer], Mapping[str, Any]],
    progress: Callable[[int], Progress],
    finish: Callable[[epath.Path, epath.Path], None] | None = None,
) -> None:
    """Writes a line for each answer; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the next call with the same settings continues it.

    Args:
        path: the path of the file; its folder exists.
        settings: the settings that determine the lines.
        answers: `answers(count)` makes all answers after the first `count`, in order.
        row: returns the line of an answer, as JSON.
        progress: `progress(count)` makes a display of the progress that begins after `count` answers.
        finish: converts the lines to the complete file; see `files.open_resumable`.
    """
    if jax.process_index() != 0:
        # The first process writes the file. The devices of this process only do their share of the work.
        for _ in answers(int(from_first_process(0))):
            pass
        wait_for_all()
        return
    with files.open_resumable(path, settings, finish) as (file, count):
        display = progress(count)
        if count:
            display.say(f"goes on after {count} lines of {path.name}")
        for number, answer in enumerate(answers(int(from_first_process(count))), start=count + 1):
            file.write(json.dumps(row(answer), ensure_ascii=False) + "\n")
            file.flush()
            display.update(number, {})
        display.close()
    wait_for_all()


def is_complete(path: epath.Path) -> bool:
    """Whether the first process sees the complete file."""
    return bool(from_first_process(int(path.is_file())))

"""A file of JSON lines, an answer each, that is made by all processes and written by the first; it outlives a kill."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.cli.processes import from_first_process, wait_for_all

# Macros of files that infer and score read.
INPUTS = ("PROMPTS", "DATA", "VALIDATION_DATA", "VOCABULARY_PATH")


def output_path(given: str | None, default: epath.Path, parquet: bool = False) -> epath.Path:
    """OUTPUT_PATH as an absolute path, or the default.

    Raises:
        UserError: it is a folder, or named like a file of another format than JSON lines or, where `parquet` may be, that.
    """
    from lmirl_jax.data.formats import check_output_name
    from lmirl_jax.types import UserError

    path = files.absolute(given) if given else default
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={str(path)!r} is a folder: name a file, such as {str(path / default.name)!r}"
        )
    if given:
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
        run = checkpoint.parent.parent
        of_run = {f"the run's {name}": run / name for name in ("config.gin", "metrics.jsonl")}
        inputs = {name: configuration.macro(name, None) for name in INPUTS}
        files.check_no_input([output], {**inputs, **of_run, **more}, "OUTPUT_PATH")


def write_lines(
    path: epath.Path,
    settings: Mapping[str, Any],
    answers: Callable[[int], Iterator[Any]],
    row: Callable[[Any], Mapping[str, Any]],
    progress: Callable[[int], Any],
    finish: Callable[[epath.Path, epath.Path], None] | None = None,
) -> None:
    """Writes a line an answer; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the next call with the same settings goes on with it.

    Args:
        path: of the file; its folder is there.
        settings: what the lines depend on.
        answers: all but the first so many, in order.
        row: what the line of an answer holds; JSON.
        progress: makes a `training.progress.Progress` that begins after so many answers.
        finish: makes the complete file of the lines; see `files.growing`.
    """
    import jax

    if jax.process_index() != 0:
        for _ in answers(from_first_process(0)):  # Its devices have their share of the work.
            pass
        wait_for_all()
        return
    with files.growing(path, settings, finish) as (file, written):
        shown = progress(written)
        if written:
            shown.say(f"goes on after {written} lines of {path.name}")
        for number, answer in enumerate(answers(from_first_process(written)), start=written + 1):
            file.write(json.dumps(row(answer), ensure_ascii=False) + "\n")
            file.flush()
            shown.update(number, {})
        shown.close()
    wait_for_all()


def is_there(path: epath.Path) -> bool:
    """Whether the first process sees the complete file."""
    return bool(from_first_process(int(path.is_file())))

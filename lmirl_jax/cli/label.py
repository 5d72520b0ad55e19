"""`lmirl label`: labelled data, a file for DATA, of answers that are judged, or completed by an inverse model."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from lmirl_jax import checkpoints, configuration, files, rewards
from lmirl_jax.arguments import Path
from lmirl_jax.cli.configure import check_without_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.data.data_files import data_files
from lmirl_jax.data.file_source import content_hash
from lmirl_jax.data.formats import check_output_name
from lmirl_jax.labelled import AnswerSet, Fills, Gaps, Labels, Tally, read_answer_sets
from lmirl_jax.training.progress import Progress
from lmirl_jax.types import UserError

PATHS = ("ANSWERS", "OUTPUT_PATH")
CHECKPOINTS = ("REWARD_CHECKPOINT_PATH", "ROLLOUT_CHECKPOINT_PATH")
MakesRows = Labels | Gaps | Fills
ReadsAnswers = Callable[[str], Iterator[AnswerSet]]


def main(flags: Flags) -> int:
    configure_without_run(flags, "gin/runs/label.gin", *PATHS)
    check_without_run(flags)
    paths = {name: configuration.macro(name, hint=Path) for name in PATHS}
    labels = configuration.macro("LABELS", hint=MakesRows)
    settings = labels.settings() | {name: repr(configuration.macro(name)) for name in labels.macros}
    for name in CHECKPOINTS:
        path = configuration.macro(name, None)
        if path is not None:
            settings[name] = checkpoints.identity(checkpoints.find_checkpoint(path))
    tally = label(paths["ANSWERS"], paths["OUTPUT_PATH"], labels, settings, _reader(labels))
    width = max(len(name) for name, _ in tally.lines())
    print("\n".join(f"{name:{width}}  {value}" for name, value in tally.lines()))
    return 0


def _reader(labels: MakesRows) -> ReadsAnswers:
    kind = labels.step_scores if isinstance(labels, Labels) else None
    if configuration.macro("ROLLOUT_CHECKPOINT_PATH", None) and not isinstance(kind, rewards.RolloutScores):
        raise UserError(
            "ROLLOUT_CHECKPOINT_PATH is of rollouts, and STEP_SCORES has none: set STEP_SCORES=@rewards.RolloutScores(), or "
            "leave it out"
        )
    if kind is None or callable(kind):
        return read_answer_sets
    return functools.partial(rewards.scored_answer_sets, kind=kind)


def label(
    answers: str, output_path: str, labels: MakesRows, settings: dict[str, Any], read: ReadsAnswers
) -> Tally:
    """Writes the rows of all prompts; the file appears under its name when it is complete, and goes on after a kill.

    Args:
        answers: the file with prompts and answers.
        output_path: the path of the result.
        labels: what makes rows.
        settings: the settings that determine them.
        read: reads the prompts of the file, each with its answers.

    Returns:
        How often each label occurs.
    """
    path = files.absolute_path(output_path)
    files.check_no_input([path], {"ANSWERS": answers}, "OUTPUT_PATH")
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={output_path!r} is a folder: name a file, such as {str(path / 'labelled.jsonl')!r}"
        )
    check_output_name(path, "OUTPUT_PATH")
    total = sum(1 for _ in read(answers))
    files.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    source = content_hash(data_files(answers, "ANSWERS"))
    tally = Tally()

    def finish(partial: epath.Path, complete: epath.Path) -> None:
        """Writes the rows one a line, of which the partial file has those of a prompt in each."""
        with files.open_atomic(complete) as file:
            for count, rows in _prompts(partial):
                tally.add(count, rows)
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")

    with files.open_resumable(path, settings | {"answers": source}, finish) as (file, count):
        progress = Progress("label", count, total, unit="prompt")
        for number, each in itertools.islice(enumerate(read(answers)), count, None):
            file.write(json.dumps([len(each.answers), labels.rows(each, number)], ensure_ascii=False) + "\n")
            file.flush()
            progress.update(number + 1, {})
        progress.close()
    if not tally.rows:
        path.unlink()
        raise UserError(
            f"{answers}: no row is left: no answer has a label, no pair of answers a better one, or no fill is accepted"
        )
    return tally


def _prompts(partial: epath.Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    with open(partial, encoding="utf-8") as lines:
        yield from map(json.loads, lines)

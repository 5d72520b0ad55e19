"""The finished cells of a sweep on disk: one file each, found again by what its numbers depend on."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmirl_jax import files

# What answers are measured against, a part of every digest of examples: cells that were measured against the decoded tokens
# of the targets, and not against their texts, are made again.
REFERENCES = "texts"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CellSettings:
    """All that the numbers of a cell depend on.

    Neither the run's label nor its place among the seeds is here: renaming a run, or naming more of them, makes no finished
    cell new.
    """

    checkpoint: str  # `checkpoints.identity` of the one that answered.
    step: int
    task: str
    split: str
    examples: str  # `files.digest` of prompts and targets.
    num_examples: int
    num_samples: int
    max_length: int  # Tokens of an answer at most.
    seed: int  # Of the sampling.
    temperature: float | int
    top_p: float | int
    top_k: int = 0
    min_p: float | int = 0.0
    rerank: str | None = (
        None  # By which checkpoint's returns samples are scored, and at which gamma; None: by none.
    )

    def path(self, folder: epath.Path) -> epath.Path:
        """The cell's file: other settings are another name, so that cells of several settings lie side by side."""
        settings = dataclasses.asdict(self)
        if self.rerank is None:
            del settings["rerank"]  # Cells from before there were scores keep their names.
        text = json.dumps(settings, sort_keys=True)
        return (
            folder
            / f"{self.task}-{self.step:06}-T{self.temperature:g}-P{self.top_p:g}-{files.digest(text)}.json"
        )


@dataclasses.dataclass(frozen=True)
class FinishedCell:
    """What a cell's file holds: metrics over the data set and prompt by prompt, their intervals, and the answers.

    Intervals are those of `evaluation.intervals`, answers are as `answer_row` has them.
    """

    settings: CellSettings
    metrics: Mapping[str, Any]
    per_prompt: Mapping[str, Any]
    intervals: Mapping[str, Sequence[float]]
    answers: Sequence[Mapping[str, Any]]

    def write(self, folder: epath.Path) -> None:
        """Writes the cell whole or not at all."""
        with files.writing(self.settings.path(folder)) as file:
            json.dump(dataclasses.asdict(self), file, ensure_ascii=False)


def read_cell(folder: epath.Path, settings: CellSettings) -> FinishedCell | None:
    """The finished cell of these settings; None where there is none, or what is there is damaged, which is logged."""
    path = settings.path(folder)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cell = FinishedCell(**content | {"settings": CellSettings(**content["settings"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        cell = None
    if cell is not None and cell.settings == settings:
        return cell
    _log.warning("%s is no finished cell: it is made again", path)
    return None


def examples_digest(examples: Sequence[Mapping[str, Any]]) -> str:
    """A digest of prompts and targets, as texts where the task keeps them and as tokens where not."""
    rows = [[_text(example, feature) for feature in ("inputs", "targets")] for example in examples]
    return files.digest(json.dumps([REFERENCES, rows]))


def prompts_of(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """The prompts, for the check that two runs were asked the same."""
    return [_text(example, "inputs") for example in examples]


def _text(example: Mapping[str, Any], feature: str) -> str:
    kept = example.get(f"{feature}_pretokenized")
    return str(kept) if kept is not None else " ".join(map(str, example.get(feature, ())))

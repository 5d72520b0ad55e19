"""The finished cells of a sweep on disk, one file each; its name is a digest of the settings that the numbers depend on."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmirl_jax import files

# The form of the references, a part of every digest of examples. Cells of older versions, which compared answers with decoded
# tokens of the targets and not with their texts, are computed again.
REFERENCES = "texts"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CellSettings:
    """All settings that the numbers of a cell depend on.

    The label of the run and its place among the seeds are not among them, so that finished cells stay valid when runs are
    renamed or added.

    Args:
        checkpoint: the `checkpoints.identity` of the checkpoint.
        step: the number of updates of the checkpoint.
        task: the name of the task.
        split: the split of the task.
        examples: the `files.digest` of prompts and targets.
        num_examples: the number of prompts.
        num_samples: the number of samples for each prompt.
        max_length: the maximum number of tokens of an answer.
        seed: the seed of the sampling.
        temperature: the sampling temperature.
        top_p: the probability that the likeliest tokens must hold; 1 for all tokens.
        top_k: the number of the likeliest tokens; 0 for all tokens.
        min_p: the smallest probability of a token, as a share of the largest one.
        rerank: the checkpoint and gamma whose returns score the samples; None for no scores.
    """

    checkpoint: str
    step: int
    task: str
    split: str
    examples: str
    num_examples: int
    num_samples: int
    max_length: int
    seed: int
    temperature: float | int
    top_p: float | int
    top_k: int = 0
    min_p: float | int = 0.0
    rerank: str | None = None

    def path(self, folder: epath.Path) -> epath.Path:
        """The file of the cell; different settings give different names, so that their cells can share a folder."""
        settings = dataclasses.asdict(self)
        if self.rerank is None:
            # Cells of versions without scores keep their names.
            del settings["rerank"]
        text = json.dumps(settings, sort_keys=True)
        return (
            folder
            / f"{self.task}-{self.step:06}-T{self.temperature:g}-P{self.top_p:g}-{files.digest(text)}.json"
        )


@dataclasses.dataclass(frozen=True)
class FinishedCell:
    """The content of the file of a cell: metrics over the data set and by prompt, intervals, and answers.

    The intervals are those of `evaluation.intervals`, and each answer is a row of `answer_row`.
    """

    settings: CellSettings
    metrics: Mapping[str, Any]
    per_prompt: Mapping[str, Any]
    intervals: Mapping[str, Sequence[float]]
    answers: Sequence[Mapping[str, Any]]

    def write(self, folder: epath.Path) -> None:
        """Writes the cell, completely or not at all."""
        with files.open_atomic(self.settings.path(folder)) as file:
            json.dump(dataclasses.asdict(self), file, ensure_ascii=False)


def read_cell(folder: epath.Path, settings: CellSettings) -> FinishedCell | None:
    """The finished cell of these settings; None where there is no file, or where it is damaged, which is logged."""
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
    """A digest of prompts and targets: of their texts where the task keeps them, else of their tokens."""
    rows = [[_text(example, feature) for feature in ("inputs", "targets")] for example in examples]
    return files.digest(json.dumps([REFERENCES, rows]))


def prompts_of(examples: Sequence[Mapping[str, Any]]) -> list[str]:
    """The prompts, for the check that two runs have the same ones."""
    return [_text(example, "inputs") for example in examples]


def _text(example: Mapping[str, Any], feature: str) -> str:
    text = example.get(f"{feature}_pretokenized")
    return str(text) if text is not None else " ".join(map(str, example.get(feature, ())))

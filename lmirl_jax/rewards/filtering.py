"""A training set from scored answers: the worst of them left out, or all of them weighted."""

import dataclasses
import difflib
import itertools
import json
import math
from typing import Any, Literal

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int

from lmirl_jax import files
from lmirl_jax.arguments import Count, Positive, PositiveShare, Text, checked
from lmirl_jax.data.formats import check_output_name
from lmirl_jax.rewards.scored import Scored
from lmirl_jax.rewards.scored_file import read_scored
from lmirl_jax.types import UserError

MEASURES = {
    "normalised_return": "normalised_return",
    "return": "total",
    "centred_return": "centred_return",
    "log_likelihood": "log_likelihood",
}


@dataclasses.dataclass(frozen=True)
class Filtered:
    """How much of a scored file was kept, and from which value of the measure on."""

    path: epath.Path
    kept: int
    answers: int
    truncated: int
    lowest: float

    def __str__(self) -> str:
        cut = f"; {self.truncated} without EOS left out" if self.truncated else ""
        return f"{self.path}: {self.kept} of {self.answers} answers, down to {self.lowest:.4g}{cut}"


@checked
@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """What is kept, and how it is weighted.

    Args:
        by: what ranks answers, the larger the better: `normalised_return` (nats a token), `return`, `centred_return`,
            `log_likelihood`, or a metric of the scored answers. Returns hold v_0, the prompt's own value, and likelihood
            the prompt's difficulty: with several answers to each prompt `centred_return` compares more fairly over all.
        per_prompt: first keep at most so many answers of each prompt, the best; None for all.
        keep: then keep this share of all that are left, above 0 and at most 1; rounded to whole answers, and at least one.
            Of equal answers the earlier line is kept.
        truncated: "drop" leaves out answers without EOS: the return of such a one lacks the reward of its last token, and
            whoever trains on it would teach it to end there. "rank" takes them as they are.
        weight_temperature: T in nats, or the measure's unit. Each answer kept is given the weight exp(measure / T), scaled
            to a mean of 1; None for no weights.

    Raises:
        UserError: a value out of range.
    """

    by: Text = "normalised_return"
    per_prompt: Count | None = None
    keep: PositiveShare = 1.0
    truncated: Literal["drop", "rank"] = "drop"
    weight_temperature: Positive | None = None


def filter_scored(
    scored: epath.PathLike, output_path: epath.PathLike, config: FilterConfig = FilterConfig()
) -> Filtered:
    """Writes the answers worth training on as JSONL with `inputs`, `targets`, and as they are there `weight` and `id`.

    The scored file is read twice, one line in memory at a time; of each only the measure is kept in between. The result has
    its order, appears whole or not at all, and is a training set for `--gin.DATA`.

        weight_i = exp((m_i - max_j m_j) / T) / mean_j exp((m_j - max_j m_j) / T)    over the answers kept

    Data weighted so stand for the policy that gains most of the measure less T times its KL divergence from the data: T large
    weights all alike, T small learns from the best alone. Prompts compete as answers do. The mean of 1 matters only where
    weighted data are mixed with others.

    Args:
        scored: what `lmirl score` wrote.
        output_path: of the result.
        config: what is kept.

    Raises:
        UserError: no scored file or a line of it that is none, a measure that it lacks, or nothing left to keep.

    Source of the weights: https://arxiv.org/abs/1910.00177.
    """
    source, path = files.absolute(scored), files.absolute(output_path)
    if path == source:
        raise UserError(f"OUTPUT_PATH={str(output_path)!r} is the scored file itself: name another")
    files.check_no_input([path], {"SCORED": source}, "OUTPUT_PATH")
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={str(output_path)!r} is a folder: name a file, such as {str(path / 'kept.jsonl')!r}"
        )
    check_output_name(path, "OUTPUT_PATH")
    measures, prompts, whole = _read(source, config.by)
    allowed = whole if config.truncated == "drop" else np.ones_like(whole)
    kept = chosen(measures, prompts, allowed, config)
    if not kept.any():
        raise UserError(
            f"{scored}: every answer lacks its EOS: score with longer TASK_FEATURE_LENGTHS, or TRUNCATED='rank'"
        )
    files.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    weights = None
    if config.weight_temperature is not None:
        weights = iter(exponential_weights(measures[kept], config.weight_temperature).tolist())
    with files.writing(path) as file:
        for answer in itertools.compress(read_scored(source), kept):
            row = _row(answer, None if weights is None else next(weights))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    left_out = int((~allowed).sum())
    return Filtered(path, int(kept.sum()), len(kept), left_out, float(measures[kept].min()))


def chosen(
    measures: Float[np.ndarray, " answers"],
    prompts: Int[np.ndarray, " answers"],
    allowed: Bool[np.ndarray, " answers"],
    config: FilterConfig,
) -> Bool[np.ndarray, " answers"]:
    """Which answers are kept.

    Args:
        measures: what ranks them, larger is better.
        prompts: the number of each one's prompt.
        allowed: those that may be kept at all.
        config: how many are.
    """
    order = np.argsort(-measures, kind="stable")
    order = order[allowed[order]]
    if config.per_prompt is not None:
        order = order[_places(prompts[order]) < config.per_prompt]
    kept = np.zeros(len(measures), bool)
    kept[order[: max(1, round(config.keep * len(order)))]] = True
    return kept


def exponential_weights(
    measures: Float[np.ndarray, " kept"], temperature: float
) -> Float[np.ndarray, " kept"]:
    """exp(measure / temperature), scaled to a mean of 1."""
    weights = np.exp((measures - measures.max()) / temperature)
    weights /= weights.mean()
    # Training computes in float32, which takes what is smaller for 0, and refuses it.
    return np.where(weights < np.finfo(np.float32).tiny, 0.0, weights)


def _places(prompts: Int[np.ndarray, " answers"]) -> Int[np.ndarray, " answers"]:
    """How many answers to the same prompt come before each."""
    by_prompt = np.argsort(prompts, kind="stable")
    numbers = prompts[by_prompt]
    begins = np.searchsorted(numbers, numbers)  # Where each prompt's run begins.
    places = np.empty(len(prompts), np.int64)
    places[by_prompt] = np.arange(len(prompts)) - begins
    return places


def _read(
    source: epath.Path, by: str
) -> tuple[Float[np.ndarray, " answers"], Int[np.ndarray, " answers"], Bool[np.ndarray, " answers"]]:
    """The first pass: of each answer the measure, the number of its prompt, and whether it has its EOS."""
    read = (
        (_measure(answer, by, f"{source}, answer {number}"), answer.example, not answer.truncated)
        for number, answer in enumerate(read_scored(source), start=1)
    )
    found = np.fromiter(read, dtype=[("measure", "f8"), ("prompt", "i8"), ("whole", "?")])
    return found["measure"], found["prompt"], found["whole"]


def _measure(answer: Scored, by: str, where: str) -> float:
    if by in MEASURES:
        value: Any = getattr(answer, MEASURES[by])
    elif by in answer.metrics:
        value = answer.metrics[by]
    else:
        known = [*MEASURES, *answer.metrics]
        nearest = difflib.get_close_matches(by, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(known)}"
        raise UserError(f"{where}: no measure BY={by!r}: {hint}")
    if by == "centred_return" and value is None:
        raise UserError(
            f"{where}: no centred_return, as its prompt has one answer alone: set BY='normalised_return'"
        )
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{where}: {by} is {value!r}, which ranks nowhere: set BY to another measure")
    return value


def _row(answer: Scored, weight: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"inputs": answer.inputs, "targets": answer.targets}
    if answer.id is not None:
        row["id"] = answer.id
    return row if weight is None else row | {"weight": float(f"{weight:.6g}")}

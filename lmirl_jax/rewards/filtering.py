"""Makes a training set of scored answers: it leaves out the worst of them, or weights all of them."""

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
from lmirl_jax.arguments import Count, Positive, PositiveShare, Text, check_arguments
from lmirl_jax.data.formats import check_output_name
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.scored_file import read_scored
from lmirl_jax.types import UserError

MEASURES = {
    "normalised_return": "normalised_return",
    "return": "total",
    "centred_return": "centred_return",
    "log_likelihood": "log_likelihood",
}


@dataclasses.dataclass(frozen=True)
class FilterResult:
    """The numbers of answers that were kept and left out.

    Args:
        path: the training set.
        kept: the number of answers in it.
        answers: the number of scored answers.
        truncated: the number of answers that were left out because they lack EOS.
        lowest: the smallest value of the measure among the answers that were kept.
    """

    path: epath.Path
    kept: int
    answers: int
    truncated: int
    lowest: float

    def __str__(self) -> str:
        left_out = f"; {self.truncated} without EOS left out" if self.truncated else ""
        return f"{self.path}: {self.kept} of {self.answers} answers, down to {self.lowest:.4g}{left_out}"


@check_arguments
@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """The settings that choose the answers to keep, and their weights.

    Args:
        by: the measure that ranks answers, larger is better: `normalised_return` (nats for each token), `return`,
            `centred_return`, `log_likelihood`, or a metric of the scored answers. A return includes v_0, the value of the
            prompt, and a likelihood depends on how hard the prompt is. So `centred_return` compares answers to different
            prompts more fairly, where prompts have several answers.
        per_prompt: first keep at most this many answers to each prompt, the best ones; None for all.
        keep: then keep this share of the rest, above 0 and at most 1; rounded to whole answers, and at least one. Of equal
            answers the earlier line is kept.
        truncated: "drop" leaves out answers without EOS: their return lacks the reward of the last token, and training on
            them would teach the model to end there. "rank" treats them like the others.
        weight_temperature: T in nats, or in the unit of the measure. Each answer gets the weight exp(measure / T), scaled to
            a mean of 1; None for no weights.

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
) -> FilterResult:
    """Writes the best answers as JSONL with `inputs` and `targets`, or `messages`, and where there are any `weight` and `id`.

    The scored file is read twice, with one line in memory at a time; between the two passes only the measures stay in memory.
    The result has the order of the scored file, appears completely or not at all, and is a training set for `--gin.DATA`.

        weight_i = exp((m_i - max_j m_j) / T) / mean_j exp((m_j - max_j m_j) / T)    over the answers that are kept

    The weighted data represent the policy that maximises the measure less T times its KL divergence from the data. With a large
    T all answers weigh the same, with a small T only the best ones count. Answers to different prompts compete too. The mean of
    1 matters only where weighted data are mixed with other data.

    Args:
        scored: the file that `lmirl score` wrote.
        output_path: the path of the result.
        config: the settings that choose the answers.

    Raises:
        UserError: no scored file, a line that is not a scored answer, a missing measure, or no answer left to keep.

    Source of the weights: https://arxiv.org/abs/1910.00177.
    """
    source, path = files.absolute_path(scored), files.absolute_path(output_path)
    if path == source:
        raise UserError(f"OUTPUT_PATH={str(output_path)!r} is the scored file itself: name another")
    files.check_no_input([path], {"SCORED": source}, "OUTPUT_PATH")
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={str(output_path)!r} is a folder: name a file, such as {str(path / 'kept.jsonl')!r}"
        )
    check_output_name(path, "OUTPUT_PATH")
    measures, prompts, complete = _read(source, config.by)
    candidates = complete if config.truncated == "drop" else np.ones_like(complete)
    selection = select(measures, prompts, candidates, config)
    if not selection.any():
        raise UserError(
            f"{scored}: every answer lacks its EOS: score with longer TASK_FEATURE_LENGTHS, or TRUNCATED='rank'"
        )
    files.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    weights = None
    if config.weight_temperature is not None:
        weights = iter(exponential_weights(measures[selection], config.weight_temperature).tolist())
    with files.open_atomic(path) as file:
        for answer in itertools.compress(read_scored(source), selection):
            row = _row(answer, None if weights is None else next(weights))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    dropped = int((~candidates).sum())
    return FilterResult(path, int(selection.sum()), len(selection), dropped, float(measures[selection].min()))


def select(
    measures: Float[np.ndarray, " answers"],
    prompts: Int[np.ndarray, " answers"],
    candidates: Bool[np.ndarray, " answers"],
    config: FilterConfig,
) -> Bool[np.ndarray, " answers"]:
    """Selects the answers to keep.

    Args:
        measures: the measure of each answer; larger is better.
        prompts: the number of the prompt of each answer.
        candidates: whether each answer may be kept.
        config: the settings that choose the answers.
    """
    order = np.argsort(-measures, kind="stable")
    order = order[candidates[order]]
    if config.per_prompt is not None:
        order = order[_places(prompts[order]) < config.per_prompt]
    selection = np.zeros(len(measures), bool)
    selection[order[: max(1, round(config.keep * len(order)))]] = True
    return selection


def exponential_weights(
    measures: Float[np.ndarray, " kept"], temperature: float
) -> Float[np.ndarray, " kept"]:
    """exp(measure / temperature), scaled to a mean of 1."""
    weights = np.exp((measures - measures.max()) / temperature)
    weights /= weights.mean()
    # Training computes in float32, where smaller weights would be 0, and refuses weights that float32 does not hold.
    return np.where(weights < np.finfo(np.float32).tiny, 0.0, weights)


def _places(prompts: Int[np.ndarray, " answers"]) -> Int[np.ndarray, " answers"]:
    """For each answer, the number of answers to the same prompt before it."""
    by_prompt = np.argsort(prompts, kind="stable")
    numbers = prompts[by_prompt]
    # The place where the answers to the same prompt begin.
    begins = np.searchsorted(numbers, numbers)
    places = np.empty(len(prompts), np.int64)
    places[by_prompt] = np.arange(len(prompts)) - begins
    return places


def _read(
    source: epath.Path, by: str
) -> tuple[Float[np.ndarray, " answers"], Int[np.ndarray, " answers"], Bool[np.ndarray, " answers"]]:
    """Reads the measure of each answer, the number of its prompt, and whether it is complete, that is, ends in EOS."""
    read = (
        (_measure(answer, by, f"{source}, answer {number}"), answer.example, not answer.truncated)
        for number, answer in enumerate(read_scored(source), start=1)
    )
    columns = np.fromiter(read, dtype=[("measure", "f8"), ("prompt", "i8"), ("complete", "?")])
    return columns["measure"], columns["prompt"], columns["complete"]


def _measure(answer: ScoredAnswer, by: str, where: str) -> float:
    if by in MEASURES:
        value: Any = getattr(answer, MEASURES[by])
    elif by in answer.metrics:
        value = answer.metrics[by]
    else:
        names = [*MEASURES, *answer.metrics]
        nearest = difflib.get_close_matches(by, names, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(names)}"
        raise UserError(f"{where}: no measure BY={by!r}: {hint}")
    if by == "centred_return" and value is None:
        raise UserError(
            f"{where}: no centred_return, as its prompt has one answer alone: set BY='normalised_return'"
        )
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{where}: {by} is {value!r}, which ranks nowhere: set BY to another measure")
    return value


def _row(answer: ScoredAnswer, weight: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"inputs": answer.inputs, "targets": answer.targets}
    if answer.messages is not None:
        row = {"messages": [*answer.messages, {"role": "assistant", "content": answer.targets}]}
    if answer.id is not None:
        row["id"] = answer.id
    return row if weight is None else row | {"weight": float(f"{weight:.6g}")}

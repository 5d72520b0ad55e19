"""A policy's answers measured: the task's metrics and diversity, with the answers beside them as JSONL."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import files
from lmirl_jax.arguments import NonNegative, Path, checked
from lmirl_jax.evaluation.diversity import distinct_n, distinct_n_per_prompt, self_bleu_per_prompt
from lmirl_jax.evaluation.generation import Answers, Generator, Prompts
from lmirl_jax.statistics.evidence import first_of
from lmirl_jax.types import UserError

LOG_LIKELIHOOD = "log_likelihood"


@runtime_checkable
class Measured(Prompts, Protocol):
    """A data set whose task has metrics, as `data.EvalDataset` is."""

    @property
    def name(self) -> str: ...

    def prompt_metrics(
        self,
        example: Mapping[str, Any],
        texts: Sequence[str],
        scores: Mapping[str, Sequence[float]] | None = None,
    ) -> Mapping[str, float]: ...

    def metrics(self, predictions: Sequence[str]) -> Mapping[str, float]: ...


def measure(data: Measured, answers: Sequence[Answers]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of answers, and those of them that are means over prompts, prompt by prompt.

    Args:
        data: the data set that was answered, whole and in order.
        answers: to each prompt, with the same number of samples each.

    Returns:
        Metrics over the data set: the task's own, averaged over samples, or (those that see all samples of a prompt at once)
        over prompts; `answer_tokens`; `entropy`, in nats, the mean over the tokens of a prompt's answers and then over
        prompts, of the policy at temperature 1; and where there are several samples a prompt `self_bleu` (0 to 100),
        `distinct_1` and `distinct_2` of the corpus, `prompt_distinct_1` and `prompt_distinct_2` within prompts. Then values
        by prompt, for bootstrap intervals: of all but corpus metrics, such as BLEU or `distinct_1`, which are no means over
        prompts.
        The largest `log_prob_gap` is there where the generator gauges it. Where samples have scores, such as `return`, the
        task's metrics of each prompt's best one are `best_of_N_by_return/METRIC`, N being the number of samples.

    Raises:
        UserError: no answers, or prompts with different numbers of samples.
    """
    samples = [list(answer.texts) for answer in answers]
    counts = {len(texts) for texts in samples}
    if not counts or len(counts) > 1 or counts == {0}:
        numbers = " or ".join(map(str, sorted(counts))) or "no"
        raise UserError(f"measure: {len(answers)} prompts have {numbers} samples; answer each equally often")
    by_sample = [data.metrics(predictions) for predictions in zip(*samples, strict=True)]
    shared = [name for name in by_sample[0] if all(name in found for found in by_sample)]
    metrics = {name: float(np.mean([found[name] for found in by_sample])) for name in shared}
    per_prompt = _means_over_prompts(metrics, _by_prompt(data, answers))
    per_prompt["answer_tokens"] = [float(np.mean(list(map(len, answer.tokens)))) for answer in answers]
    if all(answer.entropies for answer in answers):
        per_prompt["entropy"] = [float(np.mean(np.concatenate(answer.entropies))) for answer in answers]
    if len(by_sample) > 1:
        per_prompt["self_bleu"] = self_bleu_per_prompt(samples)
        per_prompt |= {f"prompt_distinct_{n}": distinct_n_per_prompt(samples, n) for n in (1, 2)}
        metrics |= {f"distinct_{n}": distinct_n(samples, n) for n in (1, 2)}
    for name in answers[0].scores:
        of_best, own = _of_best(data, answers, name)
        metrics, per_prompt = metrics | of_best, per_prompt | own
    gaps = [answer.log_prob_gap for answer in answers if answer.log_prob_gap is not None]
    if gaps:
        metrics["log_prob_gap"] = max(gaps)
    metrics |= {name: float(np.mean(values)) for name, values in per_prompt.items() if name not in metrics}
    return metrics, per_prompt


def prompts_told(data: Prompts, count: int) -> str:
    """Over how many of how many prompts metrics are; a data set of one's own need not know how many there are (`available`)."""
    return first_of(count, getattr(data, "available", None))


def _of_best(
    data: Measured, answers: Sequence[Answers], score: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The task's metrics of the sample of each prompt that the score likes best, and their values by prompt."""
    texts = [answer.texts[answer.best[score]] for answer in answers]
    found = data.metrics(texts)
    alone = [dataclasses.replace(a, texts=(text,), scores={}) for a, text in zip(answers, texts, strict=True)]
    by_prompt = {name: own for name, own in _by_prompt(data, alone).items() if name in found}
    prefix = f"best_of_{len(answers[0].texts)}_by_{score}/"
    return (
        {prefix + name: float(value) for name, value in found.items()},
        {prefix + name: own for name, own in _means_over_prompts(found, by_prompt).items()},
    )


def metric_names(
    data: Measured, num_samples: int, gauge: bool = False, scores: Sequence[str] = ()
) -> list[str]:
    """What `measure` finds of answers that equal the targets: as many metrics as any answers could have are defined."""
    each = ((0.0,),) * num_samples
    texts = [
        (example, (data.decode(example.get("targets", ())),) * num_samples)
        for _, examples in data.batches(32)
        for example in examples
    ]
    gap = 0.0 if gauge else None
    equal = dict.fromkeys(scores, (0.0,) * num_samples)
    answers = [Answers(example, own, ((),) * num_samples, each, each, gap, equal) for example, own in texts]
    return list(measure(data, answers)[0])


def _by_prompt(data: Measured, answers: Sequence[Answers]) -> dict[str, list[float]]:
    """The task's metrics of each prompt alone; those that every prompt has."""
    found: dict[str, list[float]] = {}
    for answer in answers:
        given = {"scores": answer.scores} if answer.scores else {}
        for name, value in data.prompt_metrics(answer.example, answer.texts, **given).items():
            found.setdefault(name, []).append(value)
    return {name: values for name, values in found.items() if len(values) == len(answers)}


def _means_over_prompts(
    metrics: Mapping[str, float], values: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """Those whose mean over prompts is the metric; BLEU of one prompt alone, say, has nothing to do with the corpus's."""
    return {
        name: own
        for name, own in values.items()
        if name not in metrics or np.isclose(np.mean(own), metrics[name], rtol=1e-6, atol=1e-9)
    }


@checked
class Evaluator:
    """Generates answers in the midst of training, and measures them.

    Args:
        data: what to answer; None where there is no validation split: then there is nothing to measure.
        generator: how to sample.
        temperature: 0 takes the likeliest token each time.
        label: tells several evaluators of one run apart, in the names of metrics and files; '' for one without.
        folder: within MODEL_DIR, for the answers.
    """

    def __init__(
        self,
        data: Measured | None,
        generator: Generator,
        temperature: NonNegative = 0.0,
        label: str = "",
        folder: Path = "inference_eval",
    ):
        self.data, self.generator, self.temperature = data, generator, temperature
        self.label, self.folder = label, folder

    def check(self, mesh: Mesh) -> None:
        if self.data is not None:
            self.generator.check(mesh)
            self.generator.check_temperature(self.temperature)

    def metric_names(self) -> list[str]:
        """Those that a call gives, known before any answer is."""
        if self.data is None:
            return []
        names = metric_names(self.data, self.generator.num_samples, self.generator.gauge)
        return [self._metric(self.data.name, name) for name in (*names, *self._counts(0))]

    def over(self, metrics: Mapping[str, float]) -> str:
        """Over how many of how many prompts the metrics of a call are, in words."""
        if self.data is None:
            return first_of(0, None)
        return prompts_told(self.data, int(metrics[self._metric(self.data.name, "prompts")]))

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.Path, step: int
    ) -> dict[str, float]:
        """Answers, measures and writes `MODEL_DIR/inference_eval/TASK-STEP.jsonl`, or `TASK-LABEL-STEP.jsonl`.

        Returns:
            The metrics, as `eval/TASK/METRIC` or `eval/TASK/LABEL/METRIC`; among them `prompts`, over how many they are, and
            `prompts_available`, how many the split has.
        """
        if self.data is None:
            return {}
        answers = list(self.generator(graph, params, mesh, self.data, self.temperature))
        metrics, _ = measure(self.data, answers)
        if jax.process_index() == 0:
            label = f"-{self.label}" if self.label else ""
            write_answers(model_dir / self.folder / f"{self.data.name}{label}-{step:06}.jsonl", answers)
        metrics |= self._counts(len(answers))
        return {self._metric(self.data.name, name): value for name, value in metrics.items()}

    def _counts(self, prompts: int) -> dict[str, float]:
        available = getattr(self.data, "available", None)
        of = {} if available is None else {"prompts_available": float(available)}
        return {"prompts": float(prompts), **of}

    def _metric(self, task: str, name: str) -> str:
        return "/".join(part for part in ("eval", task, self.label, name) if part)


def answer_row(answer: Answers) -> dict[str, Any]:
    """What JSONL holds of a prompt's answers; log-probabilities in nats, at temperature 1.

    With scores also these, in the plural (`returns`), and under `best` the number of the sample that each likes best.
    """
    example = answer.example
    row = {
        "inputs": example.get("inputs_pretokenized", ""),
        "targets": example.get("targets_pretokenized", ""),
        "samples": list(answer.texts),
        "log_probs": [round(float(np.sum(values)), 6) for values in answer.log_probs],
    }
    if answer.scores:
        # The log-likelihoods of samples are there as `log_probs`.
        others = {name: values for name, values in answer.scores.items() if name != LOG_LIKELIHOOD}
        row |= {f"{name}s": [round(float(x), 6) for x in values] for name, values in others.items()}
        row["best"] = answer.best
    return row


def write_answers(path: epath.PathLike, answers: Iterable[Answers]) -> None:
    """Writes a line a prompt; the file appears whole or not at all."""
    with files.writing(path) as file:
        for answer in answers:
            file.write(json.dumps(answer_row(answer), ensure_ascii=False) + "\n")

"""Measures the answers of a policy: the metrics of the task and diversity, with the answers in a JSONL file."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import files
from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import NonNegative, Path, check_arguments
from lmirl_jax.data.task_parts import REFERENCES
from lmirl_jax.evaluation.diversity import distinct_n, distinct_n_per_prompt, self_bleu_per_prompt
from lmirl_jax.evaluation.generation import Answers, Generator, Prompts
from lmirl_jax.statistics.evidence import first_of
from lmirl_jax.types import UserError

LOG_LIKELIHOOD = "log_likelihood"

Temperatures = Annotated[
    Sequence[NonNegative],
    Words(
        "a list of one or more numbers of 0 or more that differ in six digits, by which files are named",
        lambda values: 0 < len(values) == len({f"{value:g}" for value in values}),
    ),
]


@runtime_checkable
class DatasetWithMetrics(Prompts, Protocol):
    """A data set whose task has metrics, such as `data.EvalDataset`."""

    @property
    def name(self) -> str: ...

    def prompt_metrics(
        self,
        example: Mapping[str, Any],
        texts: Sequence[str],
        scores: Mapping[str, Sequence[float]] | None = None,
    ) -> Mapping[str, float]: ...

    def metrics(self, predictions: Sequence[str]) -> Mapping[str, float]: ...


def measure(
    data: DatasetWithMetrics, answers: Sequence[Answers]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of answers, and their values by prompt where a metric is a mean over prompts.

    Args:
        data: the data set, all of whose prompts were answered in order.
        answers: the answers to each prompt, with the same number of samples for each.

    Returns:
        First the metrics over the data set. The metrics of the task are averaged over samples; those that see all samples of a
        prompt at once are averaged over prompts. Further there are `answer_tokens`, and `entropy` of the policy at temperature 1
        in nats: the mean over the tokens of a prompt's answers, and then over prompts. With several samples for each prompt
        there are `self_bleu` (0 to 100), `distinct_1` and `distinct_2` of the corpus, and `prompt_distinct_1` and
        `prompt_distinct_2` within prompts. `log_prob_gap` is the largest of all answers, where the generator gauges it. Where
        samples have scores, such as `return`, `best_of_N_by_return/METRIC` is a metric of the sample with the largest score
        among the N samples of each prompt.

        Then the values by prompt, for bootstrap intervals. Corpus metrics that are not means over prompts, such as BLEU or
        `distinct_1`, have none.

    Raises:
        UserError: no answers, or prompts with different numbers of samples.
    """
    samples = [list(answer.texts) for answer in answers]
    counts = {len(texts) for texts in samples}
    if not counts or len(counts) > 1 or counts == {0}:
        numbers = " or ".join(map(str, sorted(counts))) or "no"
        raise UserError(f"measure: {len(answers)} prompts have {numbers} samples; answer each equally often")
    by_sample = [data.metrics(predictions) for predictions in zip(*samples, strict=True)]
    names = [name for name in by_sample[0] if all(name in values for values in by_sample)]
    metrics = {name: float(np.mean([values[name] for values in by_sample])) for name in names}
    per_prompt = _means_over_prompts(metrics, _by_prompt(data, answers))
    per_prompt["answer_tokens"] = [float(np.mean(list(map(len, answer.tokens)))) for answer in answers]
    if all(answer.entropies for answer in answers):
        per_prompt["entropy"] = [float(np.mean(np.concatenate(answer.entropies))) for answer in answers]
    if len(by_sample) > 1:
        per_prompt["self_bleu"] = self_bleu_per_prompt(samples)
        per_prompt |= {f"prompt_distinct_{n}": distinct_n_per_prompt(samples, n) for n in (1, 2)}
        metrics |= {f"distinct_{n}": distinct_n(samples, n) for n in (1, 2)}
    for name in answers[0].scores:
        best_metrics, best_per_prompt = _best_sample_metrics(data, answers, name)
        metrics, per_prompt = metrics | best_metrics, per_prompt | best_per_prompt
    gaps = [answer.log_prob_gap for answer in answers if answer.log_prob_gap is not None]
    if gaps:
        metrics["log_prob_gap"] = max(gaps)
    metrics |= {name: float(np.mean(values)) for name, values in per_prompt.items() if name not in metrics}
    return metrics, per_prompt


def describe_prompts(data: Prompts, count: int) -> str:
    """Says in words how many of the data set's prompts the metrics cover. A data set may lack `available`, their total number."""
    return first_of(count, getattr(data, "available", None))


def _best_sample_metrics(
    data: DatasetWithMetrics, answers: Sequence[Answers], score: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The metrics of the task for the sample of each prompt with the largest score, and their values by prompt."""
    texts = [answer.texts[answer.best[score]] for answer in answers]
    metrics = data.metrics(texts)
    best = [dataclasses.replace(a, texts=(text,), scores={}) for a, text in zip(answers, texts, strict=True)]
    per_prompt = {name: values for name, values in _by_prompt(data, best).items() if name in metrics}
    prefix = f"best_of_{len(answers[0].texts)}_by_{score}/"
    return (
        {prefix + name: float(value) for name, value in metrics.items()},
        {prefix + name: values for name, values in _means_over_prompts(metrics, per_prompt).items()},
    )


def metric_names(
    data: DatasetWithMetrics, num_samples: int, gauge: bool = False, scores: Sequence[str] = ()
) -> list[str]:
    """The names of the metrics that `measure` gives, from answers that equal the targets, for which most metrics are defined."""
    zeros = ((0.0,),) * num_samples
    gap = 0.0 if gauge else None
    equal_scores = dict.fromkeys(scores, (0.0,) * num_samples)
    answers = []
    for _, examples in data.batches(32):
        for example in examples:
            texts = (data.decode(example.get("targets", ())),) * num_samples
            answers.append(Answers(example, texts, ((),) * num_samples, zeros, zeros, gap, equal_scores))
    return list(measure(data, answers)[0])


def _by_prompt(data: DatasetWithMetrics, answers: Sequence[Answers]) -> dict[str, list[float]]:
    """The metrics of the task for each single prompt, if every prompt has them."""
    by_name: dict[str, list[float]] = {}
    for answer in answers:
        options = {"scores": answer.scores} if answer.scores else {}
        for name, value in data.prompt_metrics(answer.example, answer.texts, **options).items():
            by_name.setdefault(name, []).append(value)
    return {name: values for name, values in by_name.items() if len(values) == len(answers)}


def _means_over_prompts(
    metrics: Mapping[str, float], values: Mapping[str, list[float]]
) -> dict[str, list[float]]:
    """The values by prompt whose mean is the metric; those of BLEU are left out: their mean is not the BLEU of the corpus."""
    return {
        name: by_prompt
        for name, by_prompt in values.items()
        if name not in metrics or np.isclose(np.mean(by_prompt), metrics[name], rtol=1e-6, atol=1e-9)
    }


@check_arguments
class Evaluator:
    """Generates answers during training and measures them.

    Args:
        data: the data set to answer; None where there is no validation split, and so nothing to measure.
        generator: the generator of answers.
        temperature: the sampling temperature, where 0 always takes the likeliest token; of several temperatures, each metric is
            the mean, so that flat policies and sharp ones are measured alike.
        label: distinguishes several evaluators of one run in the names of metrics and files; '' for no label.
        folder: the folder in MODEL_DIR for the answers.
    """

    def __init__(
        self,
        data: DatasetWithMetrics | None,
        generator: Generator,
        temperature: NonNegative | Temperatures = 0.0,
        label: str = "",
        folder: Path = "inference_eval",
    ):
        self.data, self.generator = data, generator
        self.temperatures = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,)
        self.label, self.folder = label, folder

    def check(self, mesh: Mesh) -> None:
        if self.data is not None:
            self.generator.check(mesh)
            for temperature in self.temperatures:
                self.generator.check_temperature(temperature)

    def metric_names(self) -> list[str]:
        """The names of the metrics that a call returns, available before anything is answered."""
        if self.data is None:
            return []
        names = metric_names(self.data, self.generator.num_samples, self.generator.gauge)
        return [self._metric(self.data.name, name) for name in (*names, *self._counts(0))]

    def describe_counts(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many of the data set's prompts the metrics of a call cover."""
        if self.data is None:
            return first_of(0, None)
        return describe_prompts(self.data, int(metrics[self._metric(self.data.name, "prompts")]))

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.Path, step: int
    ) -> dict[str, float]:
        """Answers, measures and writes `MODEL_DIR/inference_eval/TASK-STEP.jsonl`, or `TASK-LABEL-STEP.jsonl`.

        Of several temperatures, there is a file for each, `TASK-LABEL-T0.5-STEP.jsonl`.

        Returns:
            The metrics, as `eval/TASK/METRIC` or `eval/TASK/LABEL/METRIC`; among them `prompts`, the number of prompts that were
            answered, and `prompts_available`, the number that the split has.
        """
        if self.data is None:
            return {}
        measured: dict[float | int, dict[str, float]] = {}
        prompts = 0
        for temperature in self.temperatures:
            answers = list(self.generator(graph, params, mesh, self.data, temperature))
            prompts = len(answers)
            measured[temperature], _ = measure(self.data, answers)
            if jax.process_index() == 0:
                write_answers(
                    model_dir / self.folder / self._file(self.data.name, temperature, step), answers
                )
        first, *rest = measured.values()
        names = [name for name in first if all(name in metrics for metrics in rest)]
        metrics = {name: float(np.mean([values[name] for values in measured.values()])) for name in names}
        metrics |= self._counts(prompts)
        return {self._metric(self.data.name, name): value for name, value in metrics.items()}

    def _counts(self, prompts: int) -> dict[str, float]:
        available = getattr(self.data, "available", None)
        of = {} if available is None else {"prompts_available": float(available)}
        return {"prompts": float(prompts), **of}

    def _file(self, task: str, temperature: float | int, step: int) -> str:
        at = f"T{temperature:g}" if len(self.temperatures) > 1 else ""
        return "-".join(part for part in (task, self.label, at, f"{step:06}.jsonl") if part)

    def _metric(self, task: str, name: str) -> str:
        return "/".join(part for part in ("eval", task, self.label, name) if part)


def answer_row(answer: Answers) -> dict[str, Any]:
    """The line of JSONL for the answers to one prompt; log-probabilities are in nats, at temperature 1.

    Where samples have scores, the line has them too, in the plural (`returns`), and under `best` the number of the sample with
    the largest of each score.

    A prompt that is more than one message of a user is there as `messages` too, which readers of the line take. Of several
    references `targets` is the list.
    """
    example = answer.example
    row = {
        "inputs": example.get("inputs_pretokenized", ""),
        **{key: example[key] for key in ("messages",) if example.get(key)},
        "targets": list(example.get(REFERENCES, ())) or example.get("targets_pretokenized", ""),
        "samples": list(answer.texts),
        "log_probs": [round(float(np.sum(values)), 6) for values in answer.log_probs],
    }
    if answer.scores:
        # The row has the log-likelihoods of samples already, as `log_probs`.
        scores = {name: values for name, values in answer.scores.items() if name != LOG_LIKELIHOOD}
        row |= {f"{name}s": [round(float(x), 6) for x in values] for name, values in scores.items()}
        row["best"] = answer.best
    return row


def write_answers(path: epath.PathLike, answers: Iterable[Answers]) -> None:
    """Writes one line for each prompt; the file appears complete or not at all."""
    with files.open_atomic(path) as file:
        for answer in answers:
            file.write(json.dumps(answer_row(answer), ensure_ascii=False) + "\n")

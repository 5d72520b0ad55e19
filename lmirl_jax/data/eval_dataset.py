"""A validation set in a fixed order, with whole texts beside the tokens, and the task's metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.arguments import Count, Lengths, Path, Share, Text, check_arguments
from lmirl_jax.data.given_rewards import LABEL, token_rewards
from lmirl_jax.data.jsonl import WEIGHT
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.preferences import REJECTED, without_end
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.split_checks import check_preferences, check_records
from lmirl_jax.data.task_metrics import as_seqio, aux_metrics, predict_metrics
from lmirl_jax.data.task_parts import FEATURES, last_turn
from lmirl_jax.data.texts import mark_unknown, stored_text, unknown_surface
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.types import Batch, UserError


@check_arguments
class EvalDataset:
    """A split of a task, or of the tasks of a mixture one after the other. It is in memory, and the same on every process.

    Each of `examples` is a dict: `task_name`, `inputs` and `targets` (tokens, untrimmed), and the task's other features,
    `inputs_pretokenized` and `targets_pretokenized` among them: as the task stores them, else decoded from the tokens. Of a
    conversation, the last assistant turn is the target and all before it the prompt, for the loss as for answers.

    Args:
        task: the task, from `get_task`.
        lengths: the number of tokens of a row, for `inputs` and `targets`.
        split: the name of the split; `has_split` tells whether there is one.
        num_examples: the maximum number of examples of each task; None for all.
        discount: gamma.
        truncate: whether trimming is allowed; it is counted and logged.
        cache_dir: the folder of tokenised examples; see `tokenized_records`.
        preferences, rejected_ends: whether each example is two neighbouring rows of `batches`, as in `TrainDataset`.

    Raises:
        UserError: a setting out of range, no such split, preferences without a rejected answer, or with `truncate=False` an
            example that does not fit.
    """

    def __init__(
        self,
        task: Task,
        lengths: Lengths,
        split: Text = "validation",
        num_examples: Count | None = None,
        discount: Share = 1.0,
        truncate: bool = True,
        cache_dir: Path | None = None,
        preferences: bool = False,
        rejected_ends: bool = True,
    ):
        self.task = task
        self.split, self.rows_together, self.rejected_ends = split, 2 if preferences else 1, rejected_ends
        self.lengths = {key: int(lengths[key]) for key in FEATURES}
        self.discount = float(discount)
        self._parts = {part.name: part for part in task.tasks if split in part.splits}
        if not self._parts:
            splits = sorted({split for part in task.tasks for split in part.splits})
            raise UserError(f"{task.name} has no split {split!r}; it has {', '.join(splits) or 'none'}")
        self._unknown = unknown_surface(task.output_vocabulary)
        self.has_rewards = self.has_labels = False
        self.examples: list[dict[str, Any]] = []
        # The number of examples in the splits of all tasks; metrics report it beside the number that they cover.
        self.available = 0
        for part in self._parts.values():
            records = tokenized_records(part, split, cache_dir)
            check_records(part.name, split, records, self.lengths, truncate)
            if preferences:
                check_preferences(part.name, split, records, self.lengths, truncate, preferences)
            self.available += len(records)
            self.has_rewards |= records.rewarded > 0
            self.has_labels |= records.labelled > 0
            count = len(records) if num_examples is None else min(num_examples, len(records))
            for index in range(count):
                example = last_turn(records.source[index])
                defaults: dict[str, Any] = {
                    "inputs_pretokenized": task.decode_inputs(example.inputs),
                    "targets_pretokenized": task.decode(example.targets),
                }
                if records.weighted:
                    defaults[WEIGHT] = 1.0
                tokens = {"inputs": example.inputs, "targets": example.targets}
                self.examples.append(defaults | example.features | tokens | {"task_name": part.name})

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def name(self) -> str:
        return self.task.name

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, list[dict[str, Any]]]]:
        """Yields global batches in order, each with its examples; the last one is padded with rows of weight 0."""
        count = batch_size // self.rows_together
        for start in range(0, len(self.examples), count):
            examples = self.examples[start : start + count]
            rows = [row for example in examples for row in self._rows(example)]
            yield stack_rows(rows, batch_size), examples

    def _rows(self, example: Mapping[str, Any]) -> list[Batch]:
        """The row of an example; with preferences, that of its answer and that of the rejected one."""
        rewards = token_rewards(example, len(example["targets"]))
        answers = [(example["targets"], rewards)]
        if self.rows_together > 1:
            rejected = np.array(example[REJECTED], np.int32)
            answers.append(
                (rejected if self.rejected_ends else without_end(rejected, self.task.eos_ids), None)
            )
        return [
            example_row(
                self.task.trim_prompt(example["inputs"], self.lengths["inputs"]),
                targets,
                lengths=self.lengths,
                with_rewards=self.has_rewards,
                with_labels=self.has_labels,
                label=example.get(LABEL, True),
                discount=self.discount,
                eos_ids=self.task.eos_ids,
                weight=example.get(WEIGHT, 1.0),
                rewards=given,
            )
            for targets, given in answers
        ]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return self.task.eos_ids

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of target tokens, without padding, up to the first EOS."""
        return self.task.decode(tokens)

    def reference(self, example: Mapping[str, Any]) -> str:
        """The target as the user wrote it, before the vocabulary or the lengths change it."""
        text = stored_text(example, "targets")
        return self.decode(example["targets"]) if text is None else text

    def postprocess(self, text: str, example: Mapping[str, Any], is_target: bool = False) -> Any:
        """Applies the task's `postprocess_fn` to a prediction, or to the example's target."""
        part = self._parts[example["task_name"]]
        if not is_target:
            text = mark_unknown(text, self.reference(example), self._unknown)
        return part.postprocess_fn(text, example=as_seqio(example), is_target=is_target)

    def target(self, example: Mapping[str, Any]) -> Any:
        """The postprocessed target, the argument of the task's metrics."""
        return self.postprocess(self.reference(example), example, is_target=True)

    @property
    def has_metrics(self) -> bool:
        return any(
            part.predict_metric_fns or part.predict_with_aux_metric_fns for part in self._parts.values()
        )

    def metrics(
        self,
        predictions: Sequence[str],
        samples: Sequence[Sequence[str]] | None = None,
        aux_values: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, float]:
        """The task's metrics, by name; those of a mixture are named `task/metric`. Undefined values are left out.

        Args:
            predictions: a decoded text for each of `examples`, in their order.
            samples: several decoded texts for each example; metric functions find them, postprocessed, in
                `aux_values['samples']`.
            aux_values: other values for metric functions with the argument `aux_values`, one value for each example.

        Returns:
            Numbers, on whatever scale the task's functions use (the bundled tasks: fractions from 0 to 1).
        """
        aux: dict[str, list[Any]] = {key: list(values) for key, values in (aux_values or {}).items()}
        if samples is not None:
            aux["samples"] = [
                [self.postprocess(text, example) for text in texts]
                for texts, example in zip(samples, self.examples, strict=True)
            ]
        results: dict[str, float] = {}
        outputs = [self.postprocess(text, ex) for text, ex in zip(predictions, self.examples, strict=True)]
        for name, part in self._parts.items():
            indices = self._indices_of(name)
            targets = [self.target(self.examples[index]) for index in indices]
            part_aux = {key: [values[index] for index in indices] for key, values in aux.items()}
            part_outputs = [outputs[index] for index in indices]
            prompts = [self.examples[index]["inputs_pretokenized"] for index in indices]
            values = predict_metrics(part, prompts, targets, part_outputs)
            values |= aux_metrics(part, targets, part_outputs, part_aux)
            results |= {self._prefix(name) + key: value for key, value in values.items()}
        return results

    def corpora(
        self, samples: Sequence[Sequence[str]]
    ) -> Iterator[tuple[str, list[Callable], list[Any], list[list[Any]]]]:
        """Yields for each task the prefix of its metrics' names, its metric functions, and its targets and samples.

        Args:
            samples: decoded texts for each of `examples`, in their order; the result has them postprocessed.
        """
        for name, part in self._parts.items():
            indices = self._indices_of(name)
            outputs = [[self.postprocess(text, self.examples[i]) for text in samples[i]] for i in indices]
            targets = [self.target(self.examples[i]) for i in indices]
            yield self._prefix(name), list(part.predict_metric_fns), targets, outputs

    def _indices_of(self, name: str) -> list[int]:
        """The indices of one task's examples."""
        return [index for index, example in enumerate(self.examples) if example["task_name"] == name]

    def _prefix(self, name: str) -> str:
        return f"{name}/" if len(self._parts) > 1 else ""

    def prompt_metrics(
        self,
        example: Mapping[str, Any],
        texts: Sequence[str],
        scores: Mapping[str, Sequence[float]] | None = None,
    ) -> dict[str, float]:
        """The task's metrics of the samples of a single prompt; metrics of a whole corpus may have no meaning here.

        Args:
            example: an element of `examples`.
            texts: the samples.
            scores: by name, a number for each sample; metric functions of samples find them as
                `aux_values["scores"]`, by name and prompt.
        """
        part = self._parts[example["task_name"]]
        outputs = [self.postprocess(text, example) for text in texts]
        target = self.target(example)
        prompts = [example["inputs_pretokenized"]] * len(texts)
        values = predict_metrics(part, prompts, [target] * len(texts), outputs)
        aux_values: dict[str, Any] = {"samples": [outputs]}
        if scores:
            aux_values["scores"] = {name: [list(values)] for name, values in scores.items()}
        return values | aux_metrics(part, [target], outputs[:1], aux_values)

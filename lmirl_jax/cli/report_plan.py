"""What a report on rewards is made of: runs that answer, score and are tested, or files of scored answers."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import files
from lmirl_jax.argument_rules import GivenByCaller, Is
from lmirl_jax.arguments import Corruption, Lengths, NonNegative, Seed, Share, Text, checked
from lmirl_jax.cli import infer, line_file, score
from lmirl_jax.cli.processes import wait_for_all
from lmirl_jax.evaluation.evaluator import DatasetWithMetrics
from lmirl_jax.evaluation.generation import Generator
from lmirl_jax.types import ModelConfig, Task


@checked
@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What to ask of the rewards; report.gin says what each is."""

    metric: Text | None = None
    answers_of: Text | None = None
    corruptions: Mapping[Text, Corruption] | None = None  # By name, as `rewards.CORRUPTIONS` has them.
    corruption_check: Callable[[str, str], Any] | None = None
    corruption_seed: Seed = 0

    def damages(self) -> Mapping[str, Any]:
        from lmirl_jax import rewards

        return rewards.CORRUPTIONS if self.corruptions is None else self.corruptions


@dataclasses.dataclass(frozen=True)
class ScoredFile:
    """Answers that `lmirl score` has scored already: there is no model to test."""

    label: str
    seed: int
    path: epath.Path

    def __str__(self) -> str:
        return str(self.path)

    def scored(self) -> list[Any]:
        from lmirl_jax.rewards import read_scored

        return list(read_scored(self.path, "RUNS"))


@checked
@dataclasses.dataclass(frozen=True)
class RewardingRun:
    """A checkpoint that answers prompts and rewards answers: its label, its place among the seeds, and its config.gin's rest.

    What it makes lies in files that are named by what they depend on: one that is there is not made again.
    """

    label: Annotated[str, GivenByCaller()]
    seed: Annotated[int, GivenByCaller()]
    checkpoint: Annotated[epath.Path, GivenByCaller()]
    model: ModelConfig
    mesh: Mesh
    task: Annotated[Any, Is(Task)]
    lengths: Lengths
    discount: Share
    data: Annotated[Any, Is(DatasetWithMetrics | None)]
    generator: Generator
    scorer: score.MakesScorer
    temperature: NonNegative = 1.0

    def __post_init__(self):
        from lmirl_jax.types import UserError

        if self.data is None:
            raise UserError(
                f"{self}: its task has no such split: set EVAL_SPLIT (--gin.EVAL_SPLIT=\"'train'\")"
            )
        self.generator.check(self.mesh)
        self.generator.check_samples(self.temperature)

    def __str__(self) -> str:
        return str(self.checkpoint)

    @functools.cached_property
    def run(self) -> Any:
        from lmirl_jax import runs
        from lmirl_jax.training import checkpoints

        graph, params = checkpoints.load_policy(self.checkpoint, self.model, self.mesh)
        return runs.Run(
            self.checkpoint, graph, params, self.mesh, self.task, self.lengths, float(self.discount)
        )

    def answers(self, folder: epath.Path) -> epath.Path:
        """The file of its answers to every prompt, as `lmirl infer` writes it."""
        settings = infer.settings(self.checkpoint, self.data, self.generator, self.temperature)
        path = folder / f"{self._name}-{_digest(settings)}.jsonl"

        def answers(skip: int) -> Any:
            run = self.run
            return self.generator(run.graph, run.params, self.mesh, self.data, self.temperature, skip)

        if not line_file.is_there(path):
            infer.write_answers(path, settings, answers, len(self.data))
        return path

    def scored(self, pairs: epath.Path, folder: epath.Path, longest: int = 0) -> list[Any]:
        """The scores of a file's answers, in rows that hold one of so many tokens."""
        from lmirl_jax import data
        from lmirl_jax.rewards import read_scored

        lengths = {**self.lengths, "targets": max(self.lengths["targets"], longest)}
        found = data.PairFile(str(pairs), self.task, lengths)
        scorer = self.scorer(self.run, lengths=lengths)
        path = folder / f"{self._name}-{_digest(score.settings(scorer, found, self.task))}.jsonl"
        if not line_file.is_there(path):
            score.write_scores(path, scorer, found, self.task)
        return list(read_scored(path))

    @property
    def _name(self) -> str:
        letters = "".join(letter if letter.isalnum() else "_" for letter in self.label)
        return f"{letters}-{self.seed}"


def damaged_answers(run: RewardingRun, config: ReportConfig) -> list[tuple[str, str, list[Any]]]:
    """Prompts, their targets, and each damage of them: of the split that the run answers."""
    from lmirl_jax.rewards import corrupt

    found = []
    for example in run.data.examples:
        inputs, targets = example["inputs_pretokenized"], run.data.reference(example)
        damages = corrupt(
            inputs,
            targets,
            config.damages(),
            seed=config.corruption_seed,
            is_right=config.corruption_check,
        )
        found.append((inputs, targets, damages))
    return [row for row in found if row[2]]


def longest_answer(run: RewardingRun, rows: Sequence[tuple[str, str, list[Any]]]) -> int:
    """In tokens, EOS included: what a damage repeats makes an answer longer than any in training."""
    texts = [text for _, targets, damages in rows for text in (targets, *(d.targets for d in damages))]
    return 1 + max((len(run.task.output_vocabulary.encode(text)) for text in texts), default=0)


def write_damaged(rows: Sequence[tuple[str, str, list[Any]]], folder: epath.Path) -> epath.Path:
    """The targets with their damages as a file of candidates, the first of them as it was."""
    import jax

    lines = [
        {"inputs": inputs, "candidates": [targets, *(damage.targets for damage in damages)]}
        for inputs, targets, damages in rows
    ]
    path = folder / f"damaged-{_digest(lines)}.jsonl"
    if jax.process_index() == 0:
        with files.writing(path) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    wait_for_all()
    return path


def effects(rows: Sequence[tuple[str, str, list[Any]]], scored: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
    """Originals with each damaged answer and its damage, as `rewards.effects_of_corruptions` takes them."""
    by_place = {(answer.example, answer.candidate): answer for answer in scored}
    return [
        (by_place[number, 0], by_place[number, candidate], damage)
        for number, (_, _, damages) in enumerate(rows)
        for candidate, damage in enumerate(damages, start=1)
    ]


def _digest(value: Any) -> str:
    from lmirl_jax.evaluation.sweep_cells import digest

    return digest(json.dumps(value, sort_keys=True))

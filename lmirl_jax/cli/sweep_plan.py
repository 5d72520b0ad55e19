"""The plan of a sweep: which checkpoints answer, at which temperatures and top-ps, and which metrics compare them."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import checkpoints, configuration, files, rewards, runs
from lmirl_jax.argument_rules import GivenByCaller, Is, Words
from lmirl_jax.arguments import Path, Positive, PositiveShare, Text, Whole, check_arguments
from lmirl_jax.cli.data_sets import SweptGenerator, TaskSplit
from lmirl_jax.cli.reranking import Reranking
from lmirl_jax.configuration_errors import nearest
from lmirl_jax.evaluation import Answers
from lmirl_jax.evaluation.evaluator import DatasetWithMetrics, metric_names
from lmirl_jax.evaluation.generation import AnswersPrompts
from lmirl_jax.evaluation.sweep_cells import CellSettings, examples_digest, prompts_of
from lmirl_jax.rewards.reranking import SCORES
from lmirl_jax.types import ModelConfig, UserError


def _all_different(values: Sequence[Any]) -> bool:
    return 0 < len(values) == len(set(values))


Temperatures = Annotated[
    Sequence[Positive],
    Words(
        "a list of one or more different numbers above 0 (at 0 all samples of a prompt are the same; lmirl eval takes 0)",
        _all_different,
    ),
]
TopPs = Annotated[
    Sequence[PositiveShare],
    Words("a list of one or more different numbers above 0 and at most 1", _all_different),
]
Runs = Annotated[
    Mapping[Text, Path | Sequence[Path]],
    Words(
        "labels with a list of paths each, {'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}",
        lambda runs: len(runs) > 0 and all(len(paths) > 0 for paths in runs.values()),
    ),
]
Labels = Annotated[Sequence[Text], Words("a list of one metric or more", lambda names: len(names) > 0)]


@check_arguments
@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """The settings of a sweep and of its comparison; gin/runs/sweep.gin explains each of them.

    Raises:
        UserError: no temperatures or top-ps, or one that gives no diversity.
    """

    temperatures: Temperatures
    top_ps: TopPs = (1.0,)
    quality: Text = "accuracy"
    diversity: Text | Labels | None = None
    baseline: Text | None = None
    # The number of prompts for which the page shows the answers of all runs side by side.
    shown_prompts: Whole = 6
    shown_temperature: Positive | None = None

    def __post_init__(self):
        if self.shown_temperature is not None and self.shown_temperature not in self.temperatures:
            raise UserError(
                f"SHOWN_TEMPERATURE={self.shown_temperature} is not swept over: choose one of TEMPERATURES, "
                f"{', '.join(f'{t:g}' for t in self.temperatures)}"
            )

    @property
    def points(self) -> list[tuple[float, float]]:
        """The pair (temperature, top-p) of each cell of a checkpoint."""
        return [
            (float(temperature), float(top_p))
            for top_p, temperature in itertools.product(self.top_ps, self.temperatures)
        ]

    def metrics(self, measured: Collection[str]) -> tuple[str, list[str]]:
        """The measures of quality and diversity among the metrics of a cell."""
        wanted = [self.diversity] if isinstance(self.diversity, str) else self.diversity
        if wanted is None:
            wanted = [name for name in ("distinct_valid", "self_bleu") if name in measured]
        for macro, name in [("QUALITY", self.quality), *(("DIVERSITY", name) for name in wanted)]:
            if name not in measured:
                hint = nearest(str(name), measured) or f"; there are {', '.join(measured)}"
                raise UserError(f"{macro}: the task has no metric {name!r}{hint}")
        return self.quality, list(wanted)


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """The policy of an answering run, and the scorer of its samples, if they are scored."""

    policy: runs.Policy
    reranker: rewards.Reranker | None


@check_arguments
@dataclasses.dataclass(frozen=True)
class AnsweringRun:
    """A checkpoint that answers prompts, with the label of its run, its seed's index and the settings of its config.gin."""

    label: Annotated[str, GivenByCaller()]
    seed: Annotated[int, GivenByCaller()]
    checkpoint: Annotated[epath.Path, GivenByCaller()]
    model: ModelConfig
    mesh: Mesh
    data: Annotated[TaskSplit | None, Is(DatasetWithMetrics | None)]
    generator: Annotated[SweptGenerator, Is(AnswersPrompts)]
    reranking: Reranking = dataclasses.field(default_factory=Reranking)

    def __post_init__(self):
        if self.data is None:
            raise UserError(
                f"{self}: its task has no such split: set EVAL_SPLIT (--gin.EVAL_SPLIT=\"'train'\")"
            )
        if self.generator.num_samples < 2:
            raise UserError(
                f"NUM_SAMPLES={self.generator.num_samples}: diversity is that of several samples; give 2 or more"
            )
        self.generator.check(self.mesh)

    def __str__(self) -> str:
        return f"{self.label}, seed {self.seed}, step {self.checkpoint.name}"

    @property
    def prompts(self) -> TaskSplit:
        """The data set; the constructor makes sure that it exists."""
        assert self.data is not None
        return self.data

    def load(self) -> LoadedRun:
        """Loads the policy and, if samples are scored, their scorer."""
        policy = runs.load_policy(
            self.checkpoint,
            self.model,
            self.mesh,
            self.prompts.task,
            self.prompts.lengths,
            self.reranking.discount,
        )
        return LoadedRun(
            policy, self.reranking.reranker(policy, self.generator.batch_size, self.generator.max_length)
        )

    def settings(self, points: Sequence[tuple[float, float]]) -> list[CellSettings]:
        """The settings of the run's cells, one for each (temperature, top-p)."""
        first = CellSettings(
            checkpoint=checkpoints.identity(self.checkpoint),
            step=checkpoints.step_of(self.checkpoint),
            task=self.prompts.name,
            split=self.prompts.split,
            examples=examples_digest(self.prompts.examples),
            num_examples=len(self.prompts.examples),
            num_samples=self.generator.num_samples,
            max_length=self.generator.max_length or self.prompts.lengths["targets"],
            seed=self.generator.seed,
            temperature=1.0,
            top_p=1.0,
            top_k=self.generator.filters.top_k,
            min_p=self.generator.filters.min_p,
            rerank=self.reranking.settings(self.checkpoint).get("RERANK"),
        )
        return [dataclasses.replace(first, temperature=t, top_p=top_p) for t, top_p in points]

    def answers(self, loaded: LoadedRun, settings: CellSettings) -> list[Answers]:
        """Generates the answers of one cell."""
        generator, policy = self.generator.with_top_p(settings.top_p), loaded.policy
        samples = generator(policy.graph, policy.params, self.mesh, self.prompts, settings.temperature)
        return list(samples if loaded.reranker is None else loaded.reranker(self.prompts, samples))


def paths_by_label(given: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """Returns RUNS with a list of paths for each label, also where the user gave a single path."""
    return {label: [paths] if isinstance(paths, str) else list(paths) for label, paths in given.items()}


def check_output_dir(output_dir: str, names: Sequence[str], paths: Sequence[str]) -> None:
    """Raises a UserError if a file in OUTPUT_DIR would overwrite a file that the command reads, or lie in a checkpoint.

    Args:
        output_dir: OUTPUT_DIR.
        names: the names of the files that are written to it.
        paths: the paths of the runs and files in RUNS.
    """
    read = {f"RUNS[{number}]": run for number, run in enumerate(paths)}
    read |= {name: configuration.macro(name, None) for name in ("DATA", "VALIDATION_DATA", "VOCABULARY_PATH")}
    files.check_no_input([files.absolute_path(output_dir) / name for name in names], read, "OUTPUT_DIR")


def check_sweep(answering: Sequence[AnsweringRun], config: SweepConfig) -> None:
    """Raises a UserError, before the first cell is made, for settings with which a cell or the comparison would fail.

    These are a baseline that is no run, a metric that the task lacks, a checkpoint named twice, or runs with different prompts.
    """
    labels = list(dict.fromkeys(run.label for run in answering))
    if config.baseline is not None and config.baseline not in labels:
        raise UserError(
            f"BASELINE: no run is called {config.baseline!r}; choose among {', '.join(labels)}, or None for the first"
        )
    base = answering[0]
    prompts = prompts_of(base.prompts.examples)
    for i, run in enumerate(answering):
        if run.checkpoint in [other.checkpoint for other in answering[:i]]:
            raise UserError(f"RUNS names {run.checkpoint} twice: it would count as two seeds; name it once")
        if run.prompts.name != base.prompts.name:
            raise UserError(
                f"RUNS: {run.checkpoint} is of task {run.prompts.name}, {base.checkpoint} of {base.prompts.name}: "
                "compare runs of one task"
            )
        if prompts_of(run.prompts.examples) != prompts:
            raise UserError(
                f"RUNS: {run.checkpoint} and {base.checkpoint} have other prompts in {base.prompts.name}'s split "
                f"{base.prompts.split}: train both on the same data"
            )
    scores = SCORES if base.reranking.on else ()
    config.metrics(metric_names(base.prompts, base.generator.num_samples, scores=scores))

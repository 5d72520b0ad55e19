"""What a sweep is to do: which checkpoints, at which temperatures and top-ps, compared by which metrics."""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import configuration
from lmirl_jax.argument_rules import GivenByCaller, Is, Words
from lmirl_jax.arguments import Path, Positive, PositiveShare, Text, Whole, checked
from lmirl_jax.cli.reranking import Reranking
from lmirl_jax.configuration_errors import nearest
from lmirl_jax.evaluation.evaluator import DatasetWithMetrics
from lmirl_jax.evaluation.generation import AnswersPrompts
from lmirl_jax.types import ModelConfig


def _different(values: Sequence[Any]) -> bool:
    return 0 < len(values) == len(set(values))


Temperatures = Annotated[
    Sequence[Positive],
    Words(
        "a list of one or more different numbers above 0 (at 0 all samples of a prompt are the same; lmirl eval takes 0)",
        _different,
    ),
]
TopPs = Annotated[
    Sequence[PositiveShare],
    Words("a list of one or more different numbers above 0 and at most 1", _different),
]
Runs = Annotated[
    Mapping[Text, Path | Sequence[Path]],
    Words(
        "labels with a list of paths each, {'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}",
        lambda runs: len(runs) > 0 and all(len(paths) > 0 for paths in runs.values()),
    ),
]
Labels = Annotated[Sequence[Text], Words("a list of one metric or more", lambda names: len(names) > 0)]


@checked
@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What to sweep over, and what to compare; sweep.gin says what each is.

    Raises:
        UserError: no temperatures or top-ps, or one that gives no diversity.
    """

    temperatures: Temperatures
    top_ps: TopPs = (1.0,)
    quality: Text = "accuracy"
    diversity: Text | Labels | None = None
    baseline: Text | None = None
    shown_prompts: Whole = 6  # Whose answers are shown side by side.
    shown_temperature: Positive | None = None

    def __post_init__(self):
        from lmirl_jax.types import UserError

        if self.shown_temperature is not None and self.shown_temperature not in self.temperatures:
            raise UserError(
                f"SHOWN_TEMPERATURE={self.shown_temperature} is not swept over: choose one of TEMPERATURES, "
                f"{', '.join(f'{t:g}' for t in self.temperatures)}"
            )

    @property
    def points(self) -> list[tuple[float, float]]:
        """(temperature, top-p) of each cell of a checkpoint."""
        return [
            (float(temperature), float(top_p))
            for top_p, temperature in itertools.product(self.top_ps, self.temperatures)
        ]

    def metrics(self, measured: Collection[str]) -> tuple[str, list[str]]:
        """The measures of quality and diversity among the names of metrics that a cell has."""
        from lmirl_jax.types import UserError

        wanted = [self.diversity] if isinstance(self.diversity, str) else self.diversity
        if wanted is None:
            wanted = [name for name in ("distinct_valid", "self_bleu") if name in measured]
        for macro, name in [("QUALITY", self.quality), *(("DIVERSITY", name) for name in wanted)]:
            if name not in measured:
                hint = nearest(str(name), measured) or f"; there are {', '.join(measured)}"
                raise UserError(f"{macro}: the task has no metric {name!r}{hint}")
        return self.quality, list(wanted)


@checked
@dataclasses.dataclass(frozen=True)
class Policy:
    """A checkpoint that answers: the label of its run, its place among the run's seeds, and what its config.gin gives."""

    run: Annotated[str, GivenByCaller()]
    seed: Annotated[int, GivenByCaller()]
    checkpoint: Annotated[epath.Path, GivenByCaller()]
    model: ModelConfig
    mesh: Mesh
    data: Annotated[Any, Is(DatasetWithMetrics | None)]
    generator: Annotated[Any, Is(AnswersPrompts)]
    reranking: Reranking = dataclasses.field(default_factory=Reranking)

    def __post_init__(self):
        from lmirl_jax.types import UserError

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
        return f"{self.run}, seed {self.seed}, step {self.checkpoint.name}"

    def load(self) -> tuple[Any, Any, Any]:
        """Its network, its parameters, and what scores its samples, or None."""
        from lmirl_jax.training import checkpoints

        policy = checkpoints.load_policy(self.checkpoint, self.model, self.mesh)
        reranker = self.reranking.reranker(self.checkpoint, *policy, self.mesh, self.data, self.generator)
        return *policy, reranker

    def settings(self, points: Sequence[tuple[float, float]]) -> list[Any]:
        """The settings of its cells, one for each (temperature, top-p)."""
        from lmirl_jax.evaluation import sweep_cells

        first = sweep_cells.CellSettings(
            checkpoint=sweep_cells.identity(self.checkpoint),
            step=int(self.checkpoint.name),
            task=self.data.name,
            split=self.data.split,
            examples=sweep_cells.examples_digest(self.data.examples),
            num_examples=len(self.data.examples),
            num_samples=self.generator.num_samples,
            max_length=self.generator.max_length or self.data.lengths["targets"],
            seed=self.generator.seed,
            temperature=1.0,
            top_p=1.0,
            top_k=self.generator.filters.top_k,
            min_p=self.generator.filters.min_p,
            rerank=self.reranking.settings(self.checkpoint).get("RERANK"),
        )
        return [dataclasses.replace(first, temperature=t, top_p=top_p) for t, top_p in points]

    def answers(self, loaded: tuple[Any, Any, Any], settings: Any) -> list[Any]:
        """The answers of one cell, by what `load` gave."""
        *policy, reranker = loaded
        generator = self.generator.with_top_p(settings.top_p)
        graph, params = policy
        found = generator(graph, params, self.mesh, self.data, settings.temperature)
        return list(found if reranker is None else reranker(self.data, found))


def paths_by_label(runs: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """RUNS with each run's paths as a list, one path alone too."""
    return {label: [paths] if isinstance(paths, str) else list(paths) for label, paths in runs.items()}


def check_output_dir(output_dir: str, names: Sequence[str], runs: Sequence[str]) -> None:
    """Raises a UserError where one of the files that OUTPUT_DIR gets is one that the command reads, or lies in a checkpoint."""
    from lmirl_jax import files

    read = {f"RUNS[{number}]": run for number, run in enumerate(runs)}
    read |= {name: configuration.macro(name, None) for name in ("DATA", "VALIDATION_DATA", "VOCABULARY_PATH")}
    files.check_no_input([files.absolute(output_dir) / name for name in names], read, "OUTPUT_DIR")


def check_sweep(policies: Sequence[Policy], config: SweepConfig) -> None:
    """Raises a UserError, before the first cell, for what would make it or the comparison fail.

    That is a baseline that is no run, a metric that the task lacks, a checkpoint named twice, policies with other prompts.
    """
    from lmirl_jax.evaluation.evaluator import metric_names
    from lmirl_jax.evaluation.sweep_cells import prompts_of
    from lmirl_jax.rewards.reranking import SCORES
    from lmirl_jax.types import UserError

    labels = list(dict.fromkeys(policy.run for policy in policies))
    if config.baseline is not None and config.baseline not in labels:
        raise UserError(
            f"BASELINE: no run is called {config.baseline!r}; choose among {', '.join(labels)}, or None for the first"
        )
    base = policies[0]
    prompts = prompts_of(base.data.examples)
    for i, policy in enumerate(policies):
        if policy.checkpoint in [other.checkpoint for other in policies[:i]]:
            raise UserError(
                f"RUNS names {policy.checkpoint} twice: it would count as two seeds; name it once"
            )
        if policy.data.name != base.data.name:
            raise UserError(
                f"RUNS: {policy.checkpoint} is of task {policy.data.name}, {base.checkpoint} of {base.data.name}: "
                "compare runs of one task"
            )
        if prompts_of(policy.data.examples) != prompts:
            raise UserError(
                f"RUNS: {policy.checkpoint} and {base.checkpoint} have other prompts in {base.data.name}'s split "
                f"{base.data.split}: train both on the same data"
            )
    scores = SCORES if base.reranking.on else ()
    config.metrics(metric_names(base.data, base.generator.num_samples, scores=scores))

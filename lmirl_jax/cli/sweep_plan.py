"""What a sweep is to do: which checkpoints, at which temperatures and top-ps, compared by which metrics."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from lmirl_jax import configuration
from lmirl_jax.cli.reranking import Reranking
from lmirl_jax.configuration_errors import nearest


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What to sweep over, and what to compare; sweep.gin says what each is.

    Raises:
        UserError: no temperatures or top-ps, or one that gives no diversity.
    """

    temperatures: Any
    top_ps: Any = (1.0,)
    quality: str = "accuracy"
    diversity: Any = None
    baseline: str | None = None
    shown_prompts: int = 6  # Whose answers are shown side by side.
    shown_temperature: float | int | None = None

    def __post_init__(self):
        from lmirl_jax.types import UserError

        _check_axis("TEMPERATURES", self.temperatures, "[0.5, 1.0]")
        _check_axis("TOP_PS", self.top_ps, "[0.9, 1.0]")
        for temperature in self.temperatures:
            if not 0 < temperature < math.inf:
                raise UserError(
                    f"TEMPERATURES: {temperature!r} must be a positive number: at 0 all samples of a prompt are the same, "
                    "and their diversity says nothing; lmirl eval takes 0 too"
                )
        for top_p in self.top_ps:
            if not 0 < top_p <= 1:
                raise UserError(f"TOP_PS: {top_p!r} must be above 0 and at most 1 (all tokens)")
        shown = self.shown_prompts
        if isinstance(shown, bool) or not isinstance(shown, int) or shown < 0:
            raise UserError(f"SHOWN_PROMPTS={shown!r} must be a whole number, 0 for none")
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
        if not wanted:
            raise UserError("DIVERSITY is empty: name one metric or more, or None for the usual ones")
        for macro, name in [("QUALITY", self.quality), *(("DIVERSITY", name) for name in wanted)]:
            if name not in measured:
                hint = nearest(str(name), measured) or f"; there are {', '.join(measured)}"
                raise UserError(f"{macro}: the task has no metric {name!r}{hint}")
        return self.quality, list(wanted)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A checkpoint that answers: the label of its run, its place among the run's seeds, and what its config.gin gives."""

    run: str
    seed: int
    checkpoint: epath.Path
    model: Any
    mesh: Any
    data: Any
    generator: Any
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
        found = generator(*policy, self.mesh, self.data, settings.temperature)
        return list(found if reranker is None else reranker(self.data, found))


def _check_axis(macro: str, values: Any, example: str) -> None:
    from lmirl_jax.types import UserError

    if not isinstance(values, (list, tuple)) or not values:
        raise UserError(f"{macro}={values!r} must name one or more: --gin.{macro}='{example}'")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"{macro}: {value!r} is no number; write --gin.{macro}='{example}'")
    if len(set(values)) < len(values):
        raise UserError(f"{macro}={list(values)} names one twice: name each once")


def checked_runs(runs: Any) -> dict[str, list[str]]:
    """RUNS with each run's paths as a list.

    Raises:
        UserError: it names no runs, or not in this form.
    """
    from lmirl_jax.types import UserError

    example = "--gin.RUNS=\"{'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}\""
    if not isinstance(runs, dict) or not runs:
        raise UserError(f"RUNS={runs!r} names no runs: give each label its paths, {example}")
    listed = {label: [paths] if isinstance(paths, str) else paths for label, paths in runs.items()}
    for label, paths in listed.items():
        fits = isinstance(paths, (list, tuple)) and paths and all(isinstance(path, str) for path in paths)
        if not isinstance(label, str) or not fits:
            raise UserError(f"RUNS: {label!r}: {paths!r} is no label with a list of paths; write {example}")
    return {label: list(paths) for label, paths in listed.items()}


def check_output_dir(output_dir: Any, names: Sequence[str], runs: Sequence[str]) -> None:
    """Raises a UserError where one of the files that OUTPUT_DIR gets is one that the command reads, or lies in a checkpoint."""
    from lmirl_jax import files

    if not isinstance(output_dir, str) or not output_dir:
        return  # `prepare_directory` says so.
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

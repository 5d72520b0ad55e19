"""Runs evaluations during training."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax.training.best import BestConfig


@runtime_checkable
class Evaluation(Protocol):
    """Measures the policy at regular intervals of training."""

    def check(self, mesh: Mesh) -> None:
        """Raises a UserError, before training, if the evaluation cannot run on the mesh."""
        ...

    def metric_names(self) -> Collection[str]:
        """The names of the metrics that a call can return."""
        ...

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.PathLike, step: int
    ) -> Mapping[str, float]: ...


@runtime_checkable
class DescribesCounts(Protocol):
    """An evaluation that can say how many examples its metrics cover."""

    def describe_counts(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many of how many examples the metrics of a call cover; the counts are among the metrics."""
        ...


COUNTS = ("prompts", "prompts_available", "examples", "examples_available")
"""Metrics with these last parts of their names are counts, which the log gives in words."""


def check_evaluations(evaluations: Sequence[Evaluation], mesh: Mesh, best: BestConfig) -> None:
    """Raises a UserError, already before training, for an evaluation that cannot run."""
    for evaluation in evaluations:
        evaluation.check(mesh)
    if best.metric is not None:
        best.check({name for evaluation in evaluations for name in evaluation.metric_names()})


def evaluate(
    evaluations: Sequence[Evaluation],
    graph: nnx.GraphDef,
    params: Any,
    mesh: Mesh,
    model_dir: epath.PathLike,
    step: int,
) -> tuple[dict[str, float], str]:
    """Runs all evaluations.

    Returns:
        The metrics, and a text for the log with the metrics and the numbers of examples that they cover.
    """
    metrics: dict[str, float] = {}
    texts = []
    for evaluation in evaluations:
        results = evaluation(graph, params, mesh, model_dir, step)
        metrics.update(results)
        values = {name: value for name, value in results.items() if name.rsplit("/", 1)[-1] not in COUNTS}
        if values:
            numbers = " ".join(f"{name}={value:.4g}" for name, value in values.items())
            counts = ""
            if isinstance(evaluation, DescribesCounts):
                counts = f" over {evaluation.describe_counts(results)}"
            texts.append(numbers + counts)
    return metrics, "; ".join(texts)

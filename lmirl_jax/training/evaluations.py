"""Evaluations during training."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax.training.best import BestConfig


@runtime_checkable
class Evaluation(Protocol):
    """Measures the parameters, every so many updates."""

    def check(self, mesh: Mesh) -> None:
        """Raises a UserError, before training, where it could not run on the mesh."""
        ...

    def metric_names(self) -> Collection[str]:
        """The metrics that a call can give."""
        ...

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.PathLike, step: int
    ) -> Mapping[str, float]: ...


@runtime_checkable
class Counted(Protocol):
    """An evaluation that says how many examples its metrics cover."""

    def over(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many examples, and of how many, the metrics of a call cover; the counts are among them."""
        ...


COUNTS = ("prompts", "prompts_available", "examples", "examples_available")
"""Metrics whose names end so are counts, which the log gives in words."""


def check_evaluations(evaluations: Sequence[Evaluation], mesh: Mesh, best: BestConfig) -> None:
    """Raises a UserError for an evaluation that could not run, before training instead of at the first evaluation."""
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
    """The metrics of all evaluations; and a text of them for the log, with the number of examples that they cover."""
    metrics: dict[str, float] = {}
    texts = []
    for evaluation in evaluations:
        results = evaluation(graph, params, mesh, model_dir, step)
        metrics.update(results)
        values = {name: value for name, value in results.items() if name.rsplit("/", 1)[-1] not in COUNTS}
        if values:
            numbers = " ".join(f"{name}={value:.4g}" for name, value in values.items())
            over = f" over {evaluation.over(results)}" if isinstance(evaluation, Counted) else ""
            texts.append(numbers + over)
    return metrics, "; ".join(texts)

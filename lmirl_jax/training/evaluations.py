"""What is measured of the parameters in the midst of training."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax.training.best import BestConfig


@runtime_checkable
class Evaluation(Protocol):
    """Something to measure of the parameters now and then."""

    def check(self, mesh: Mesh) -> None:
        """Raises a UserError, before training, where it could not run on the mesh."""
        ...

    def metric_names(self) -> Collection[str]:
        """The metrics that a call can give."""
        ...

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.PathLike, step: int
    ) -> Mapping[str, float]: ...


def check_evaluations(evaluations: Sequence[Evaluation], mesh: Mesh, best: BestConfig) -> None:
    """Raises a UserError for what would otherwise show at the first evaluation."""
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
) -> dict[str, float]:
    """The metrics of all evaluations."""
    metrics: dict[str, float] = {}
    for evaluation in evaluations:
        metrics.update(evaluation(graph, params, mesh, model_dir, step))
    return metrics

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


@runtime_checkable
class Counted(Protocol):
    """An evaluation that says over how much its metrics are."""

    def over(self, metrics: Mapping[str, float]) -> str:
        """Over how many of how many the metrics of a call are, in words; their counts are among them."""
        ...


COUNTS = ("prompts", "prompts_available", "examples", "examples_available")
"""The last part of metrics that are counts: the log says them in words."""


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
) -> tuple[dict[str, float], str]:
    """The metrics of all evaluations, and for the log the same in words, with over how many of how many they are."""
    metrics: dict[str, float] = {}
    texts = []
    for evaluation in evaluations:
        found = evaluation(graph, params, mesh, model_dir, step)
        metrics.update(found)
        shown = {name: value for name, value in found.items() if name.rsplit("/", 1)[-1] not in COUNTS}
        if shown:
            numbers = " ".join(f"{name}={value:.4g}" for name, value in shown.items())
            over = f" over {evaluation.over(found)}" if isinstance(evaluation, Counted) else ""
            texts.append(numbers + over)
    return metrics, "; ".join(texts)

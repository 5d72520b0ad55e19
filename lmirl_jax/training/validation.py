"""Computes the training loss on held-out data, teacher-forced and without dropout."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import sharding
from lmirl_jax.arguments import Count, LossFunction, NonNegative, Schedule, check_arguments
from lmirl_jax.statistics.evidence import first_of
from lmirl_jax.training.schedules import value_at
from lmirl_jax.training.soft_q_config import SoftQConfig
from lmirl_jax.training.step import loss_sums, weigh_labels
from lmirl_jax.types import Batch

METRICS = ("loss", "loss_mle", "loss_td", "reward", "entropy", "accuracy")
"""The metrics of `loss_sums`; `reward` is undefined where every answer is truncated."""
EXAMPLES, AVAILABLE = "eval/examples", "eval/examples_available"
"""The number of examples that the metrics cover, and the size of the split, if the data set knows it (`available`)."""


@runtime_checkable
class HeldOut(Protocol):
    """A data set in a fixed order, such as `data.EvalDataset`."""

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Any]]: ...


@check_arguments
class Validation:
    """The training loss and its metrics on held-out data.

    Args:
        data: the held-out data; None where there is no validation split, so that nothing is measured.
        objective: the per-token loss of training.
        td_weight: lambda of training.
        soft_q_config: the settings with which training computes soft Q-values.
        batch_size: the number of examples in a batch.
        max_batches: the maximum number of batches; None for all.
    """

    def __init__(
        self,
        data: HeldOut | None,
        objective: LossFunction,
        td_weight: NonNegative | Schedule = 0.0,
        soft_q_config: SoftQConfig = SoftQConfig(),
        batch_size: Count = 32,
        max_batches: Count | None = None,
    ):
        self.data, self.objective, self.td_weight = data, objective, td_weight
        self.soft_q_config = soft_q_config
        self.batch_size, self.max_batches = batch_size, max_batches

    def check(self, mesh: Mesh) -> None:
        if self.data is not None:
            sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE")

    def metric_names(self) -> list[str]:
        if self.data is None:
            return []
        return [
            *(f"eval/{name}" for name in METRICS),
            EXAMPLES,
            *[AVAILABLE] * hasattr(self.data, "available"),
        ]

    def describe_counts(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many examples the metrics of a call cover, and of how many."""
        count, available = int(metrics.get(EXAMPLES, 0)), metrics.get(AVAILABLE)
        return first_of(count, None if available is None else int(available), "example")

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.Path, step: int
    ) -> dict[str, float]:
        """Returns means over the target tokens of all batches together; the names begin with `eval/`."""
        if self.data is None:
            return {}
        td_weight = value_at(self.td_weight, jnp.asarray(step))
        rows = sharding.local_rows(mesh, self.batch_size)
        totals: dict[str, np.ndarray] = {}
        count = 0
        scale = _label_scale(self._batches(self.data))
        for batch in self._batches(self.data):
            count += int(np.any(np.asarray(batch.weights) > 0, axis=-1).sum())
            batch = weigh_labels(batch, scale)
            global_batch = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), self.batch_size)
            with sharding.use(mesh):
                static = graph, mesh, self.objective, self.soft_q_config
                sums = jax.device_get(_sums(*static, params, global_batch, td_weight))
            for name, pair in sums.items():
                totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
        counts = {EXAMPLES: float(count)}
        if hasattr(self.data, "available"):
            counts[AVAILABLE] = float(self.data.available)
        return {f"eval/{name}": total / weight for name, (total, weight) in totals.items() if weight} | counts

    def _batches(self, data: HeldOut) -> Iterator[Batch]:
        batches = itertools.islice(data.batches(self.batch_size), self.max_batches)
        return (batch for batch, _ in batches)


def _label_scale(batches: Iterator[Batch]) -> np.floating:
    """The weight of all answers' tokens over that of right ones; 1 for data without labels, 0 where no answer is right."""
    total = right = np.float32(0)
    for batch in batches:
        if batch.labels is None:
            return np.float32(1)
        total, right = total + batch.weights.sum(), right + (batch.weights * batch.labels).sum()
    return total / right if right else np.float32(0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sums(graph, mesh, objective, soft_q_config, params, batch, td_weight):
    sums = loss_sums(nnx.merge(graph, params), objective, batch, td_weight, soft_q_config=soft_q_config)
    return jax.lax.with_sharding_constraint(sums, sharding.replicated_sharding(mesh))

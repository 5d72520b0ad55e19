"""The loss of held-out preferences."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from lmirl_jax import sharding
from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Count, check_arguments
from lmirl_jax.labelled.preference_loss import PreferenceLoss, preference_sums, reference_scores
from lmirl_jax.statistics.evidence import first_of
from lmirl_jax.training.schedules import value_at
from lmirl_jax.types import Batch

PREFIX = "eval/preferences/"
METRICS = (
    *("loss", "loss_preference", "loss_demonstrations", "loss_mle", "loss_mle_rejected"),
    *("preference_accuracy", "margin", "chosen_score", "rejected_score"),
)
EXAMPLES, AVAILABLE = f"{PREFIX}examples", f"{PREFIX}examples_available"


@runtime_checkable
class HeldOutPreferences(Protocol):
    """Preferences in a fixed order, such as a `data.EvalDataset` with `preferences=True`."""

    available: int

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Sequence[Any]]]: ...


LoadsPolicy = Annotated[
    Callable[..., Any], Words("a loader of a policy such as @runs.load_if_any, without brackets", callable)
]


@check_arguments
class PreferenceValidation:
    """The training loss and its metrics on held-out preferences, without dropout.

    The reference is loaded at the first call, scores the preferences once, and is then dropped.

    Args:
        data: held-out preferences, rows of chosen and rejected answers; None where there is no validation split.
        loss: the loss of training.
        load_reference: returns the `runs.Policy` that training began with, or None: then reference scores are 0.
        batch_size: the number of rows in a batch.
        max_batches: the maximum number of batches; None for all.
    """

    def __init__(
        self,
        data: HeldOutPreferences | None,
        loss: PreferenceLoss,
        load_reference: LoadsPolicy = lambda: None,
        batch_size: Count = 32,
        max_batches: Count | None = None,
    ):
        self.data, self.loss = data, loss
        self.load_reference = load_reference
        self.batch_size, self.max_batches = batch_size, max_batches
        self._reference: list[Float[np.ndarray, " rows"]] | None = None

    def check(self, mesh: Mesh) -> None:
        if self.data is not None:
            sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE", together=2)

    def metric_names(self) -> list[str]:
        return [] if self.data is None else [*(PREFIX + name for name in METRICS), EXAMPLES, AVAILABLE]

    def describe_counts(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many preferences the metrics of a call cover, and of how many."""
        return first_of(int(metrics.get(EXAMPLES, 0)), int(metrics.get(AVAILABLE, 0)), "preference")

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, model_dir: epath.Path, step: int
    ) -> dict[str, float]:
        """Returns means over pairs, and over tokens, of all batches together."""
        if self.data is None:
            return {}
        if self._reference is None:
            self._reference = self._score_reference(self.data, mesh)
        td_weight = value_at(self.loss.td_weight, jnp.asarray(step))
        totals: dict[str, np.ndarray] = {}
        count = 0
        for (batch, examples), reference in zip(self._batches(self.data), self._reference, strict=True):
            count += len(examples)
            rows = self._to_global(mesh, batch)
            local = reference[sharding.local_rows(mesh, self.batch_size)]
            scores = sharding.rows_to_global(mesh, local, self.batch_size)
            with sharding.use(mesh):
                sums = jax.device_get(_sums(graph, mesh, self.loss, params, rows, scores, td_weight))
            for name, pair in sums.items():
                totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
        means = {name: float(total / weight) for name, (total, weight) in totals.items() if weight}
        weighted = (
            ("loss_preference", self.loss.preference_weight),
            ("loss_demonstrations", self.loss.demonstration_weight),
        )
        loss = sum(weight * means.get(name, 0.0) for name, weight in weighted if weight)
        counts = {EXAMPLES: float(count), AVAILABLE: float(self.data.available)}
        return {PREFIX + name: value for name, value in (means | {"loss": loss}).items()} | counts

    def _score_reference(self, data: HeldOutPreferences, mesh: Mesh) -> list[Float[np.ndarray, " rows"]]:
        """The scores of all rows under the reference, batch by batch; 0 without one."""
        policy = None if self.loss.reference_free else self.load_reference()
        result = []
        for batch, _ in self._batches(data):
            if policy is None:
                result.append(np.zeros(len(batch.weights), np.float32))
                continue
            rows = self._to_global(mesh, batch)
            with sharding.use(mesh):
                result.append(jax.device_get(_scores(policy.graph, mesh, self.loss, policy.params, rows)))
        return result

    def _batches(self, data: HeldOutPreferences) -> Iterator[tuple[Batch, Sequence[Any]]]:
        return itertools.islice(data.batches(self.batch_size), self.max_batches)

    def _to_global(self, mesh: Mesh, batch: Batch) -> Batch:
        rows = sharding.local_rows(mesh, self.batch_size)
        return sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), self.batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _scores(graph, mesh, loss, params, batch):
    scores = reference_scores(nnx.merge(graph, params), batch, loss)
    return jax.lax.with_sharding_constraint(scores, sharding.replicated_sharding(mesh))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums(graph, mesh, loss, params, batch, reference, td_weight):
    sums = preference_sums(nnx.merge(graph, params), batch, reference, loss, td_weight)
    return jax.lax.with_sharding_constraint(sums, sharding.replicated_sharding(mesh))

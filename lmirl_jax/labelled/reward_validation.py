"""The loss of a reward model on held-out preferences, or on held-out right and wrong answers."""

import functools
import itertools
from collections.abc import Mapping

import jax
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import sharding
from lmirl_jax.arguments import Count, check_arguments
from lmirl_jax.labelled.preference_validation import HeldOutPreferences
from lmirl_jax.labelled.reward_loss import RewardLoss, reward_sums
from lmirl_jax.statistics.evidence import first_of

PREFIX = "eval/rewards/"
METRICS = ("loss", "accuracy", "disagreement")
EXAMPLES, AVAILABLE = f"{PREFIX}examples", f"{PREFIX}examples_available"


@check_arguments
class RewardValidation:
    """The training loss and its metrics on held-out data, without dropout.

    Args:
        data: held-out preferences, or answers with labels; None where there is no validation split.
        loss: the loss of training.
        batch_size: the number of rows in a batch.
        max_batches: the maximum number of batches; None for all.
    """

    def __init__(
        self,
        data: HeldOutPreferences | None,
        loss: RewardLoss,
        batch_size: Count = 32,
        max_batches: Count | None = None,
    ):
        self.data, self.loss = data, loss
        self.batch_size, self.max_batches = batch_size, max_batches

    def check(self, mesh: Mesh) -> None:
        if self.data is not None:
            sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE", together=2)

    def metric_names(self) -> list[str]:
        return [] if self.data is None else [*(PREFIX + name for name in METRICS), EXAMPLES, AVAILABLE]

    def describe_counts(self, metrics: Mapping[str, float]) -> str:
        """Says in words how many examples the metrics of a call cover, and of how many."""
        return first_of(int(metrics.get(EXAMPLES, 0)), int(metrics.get(AVAILABLE, 0)), "example")

    def __call__(
        self, graph: nnx.GraphDef, params: object, mesh: Mesh, model_dir: epath.Path, step: int
    ) -> dict[str, float]:
        """Returns means over pairs, or over tokens and answers, of all batches together."""
        if self.data is None:
            return {}
        rows = sharding.local_rows(mesh, self.batch_size)
        totals: dict[str, np.ndarray] = {}
        count = 0
        for batch, examples in itertools.islice(self.data.batches(self.batch_size), self.max_batches):
            count += len(examples)
            local = jax.tree.map(lambda x: x[rows], batch)
            with sharding.use(mesh):
                whole = sharding.to_global(mesh, local, self.batch_size)
                sums = jax.device_get(_sums(graph, mesh, self.loss, params, whole))
            for name, pair in sums.items():
                totals[name] = totals.get(name, np.zeros(2)) + np.asarray(pair, np.float64)
        means = {name: float(totals[name][0] / totals[name][1]) for name in METRICS if totals[name][1]}
        counts = {EXAMPLES: float(count), AVAILABLE: float(self.data.available)}
        return {PREFIX + name: value for name, value in means.items()} | counts


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sums(graph, mesh, loss, params, batch):
    sums = reward_sums(nnx.merge(graph, params), batch, None, loss)
    return jax.lax.with_sharding_constraint(sums, sharding.replicated_sharding(mesh))

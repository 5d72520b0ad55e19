"""A training set of which only the shapes are known: enough to compile an update, with no data at hand."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from lmirl_jax.types import Batch


@dataclasses.dataclass
class AbstractData:
    """A `types.TrainData`, and prompts for rollouts, that yields no batch; the names are those of `data.TrainDataset`."""

    batch_size: int
    lengths: Mapping[str, int]
    vocab_size: int = 1
    rows_together: int = 1
    has_rewards: bool = False
    has_labels: bool = False
    has_preferences: bool = False
    packed: bool = False
    buckets: int = 1
    eos_ids: tuple[int, ...] = (1,)

    def iterator(self, rows: slice | Int[np.ndarray, " rows"]) -> "NoBatches":
        return NoBatches()

    def batch(self) -> Batch:
        """The shapes of a global batch."""

        def array(feature: str, dtype: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.batch_size, self.lengths[feature]), dtype)

        ids, numbers = array("targets", jnp.int32), array("targets", jnp.float32)
        prompts = array("inputs", jnp.int32)
        return Batch(
            tokens=ids,
            segment_ids=ids,
            positions=ids,
            weights=numbers,
            discounts=numbers,
            td_weights=numbers,
            rewards=numbers if self.has_rewards else None,
            labels=numbers if self.has_labels else None,
            prompt_tokens=prompts,
            prompt_segment_ids=prompts,
        )


class NoBatches:
    """A `types.BatchIterator` without batches."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        raise StopIteration

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        del state

"""Iterates over the batches of a training set, from any position in its order."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain

from lmirl_jax.types import Batch, UserError

# Batches are prepared by threads, ahead of the trainer: reading and stacking release the interpreter's lock.
READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


class TrainIterator:
    """Iterates over one block of every global batch; the position in the order is the same for all blocks.

    Args:
        blocks: gives the blocks from a position on.
        batch_size: the number of rows of a global batch.
        fingerprint: that of the data set in its order.
        vocabularies: the fingerprints of the vocabularies.
    """

    def __init__(
        self,
        blocks: Callable[[int], grain.MapDataset],
        batch_size: int,
        fingerprint: str,
        vocabularies: Mapping[str, str],
    ):
        self._blocks = blocks
        self._batch_size = batch_size
        self._fingerprint = fingerprint
        self._vocabularies = dict(vocabularies)
        self._batches: Any = None
        self._next_index = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = iter(self._blocks(self._next_index).to_iter_dataset(READ))
        batch = next(self._batches)
        # The position does not include batches that are only prepared.
        self._next_index += self._batch_size
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position, with fingerprints of the data set in its order and of the vocabularies.

        `next_index` counts the rows that all processes have consumed together. The parameters of a checkpoint
        depend on the vocabularies.
        """
        return {
            "next_index": self._next_index,
            "dataset": self._fingerprint,
            "vocabularies": self._vocabularies,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a state of an iterator of the same data, which may have another number of processes.

        It may have another batch size too, unless the data are bucketed.

        Raises:
            UserError: the state belongs to another vocabulary, to other examples, or to another order of them.
        """
        if state.get("vocabularies", self._vocabularies) != self._vocabularies:
            raise UserError(
                "the checkpoint was trained with another vocabulary: set VOCABULARY_PATH as it was, or use a new MODEL_DIR"
            )
        if state["dataset"] != self._fingerprint:
            raise UserError(
                "the checkpoint was trained on other data, or in another order (task, vocabulary, TRAIN_NUM_EXAMPLES, "
                "RANDOM_SEED, PROMPT_SEED, PACK, BUCKETS, and with either TASK_FEATURE_LENGTHS and CHAT_TURNS, with BUCKETS "
                "BATCH_SIZE too): use a new MODEL_DIR, with INITIAL_CHECKPOINT_PATH to start from its weights"
            )
        self.close()
        self._next_index = int(state["next_index"])

    def close(self) -> None:
        """Stops preparing batches ahead."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

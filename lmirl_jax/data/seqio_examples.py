"""Reads the examples of a SeqIO task with SeqIO's pipeline."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from lmirl_jax.data import fingerprints
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.data.task_parts import FEATURES, Example
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

# Preprocessors that draw random numbers draw the same ones on every host.
SEED = 42


@dataclasses.dataclass(frozen=True)
class SeqioReader:
    """Reads the splits of a SeqIO task; see `shards.RowReader`."""

    task: seqio.Task

    def fingerprint(self, split: str, format_version: int) -> str:
        """The hash that names a split's tokens on disk.

        Raises:
            UserError: the task asks for SeqIO's cache and there is none, or the split's TFDS data set is not there.
        """
        if self.task.requires_caching and not self.task.cache_dir:
            raise UserError(
                f"task {self.task.name} must be cached with seqio_cache_tasks first: name its folder with "
                "--seqio_additional_cache_dirs"
            )
        return fingerprints.split_fingerprint(self.task, split, format_version)

    def rows(self, split: str, unread: UnreadKeys) -> Iterator[tuple[str, Example]]:
        """The examples in the task's own order; all their features are kept, so that no key is unread.

        SeqIO runs without a sequence length, so that EOS is appended to the whole text, and later trimming can be counted.
        """
        for element in _dataset(self.task, split).as_numpy_iterator():
            features = {key: _plain(value) for key, value in element.items() if key not in FEATURES}
            yield (
                self.task.name,
                Example(np.asarray(element["inputs"]), np.asarray(element["targets"]), features),
            )

    def num_examples(self, split: str) -> int | None:
        """The number of examples of the source, where it tells; preprocessors may change it."""
        return self.task.num_input_examples(split)

    def encode(self, where: str, row: Example) -> Example:
        """The row itself, of which SeqIO has made an example."""
        return row


def _dataset(task: seqio.Task, split: str) -> tf.data.Dataset:
    if task.supports_caching and task.cache_dir:
        return task.get_dataset(
            None, split, use_cached=True, shuffle=False, seed=SEED, try_in_mem_cache=False
        )
    # Task.get_dataset would pass its seed to sources that do not take one.
    dataset = task.source.get_dataset(split=split, shuffle=False)
    dataset = task.preprocess_precache(dataset, seed=SEED)
    dataset = task.preprocess_postcache(dataset, sequence_length=None, seed=SEED)
    for key in FEATURES:
        spec = dataset.element_spec.get(key)
        if spec is None or not spec.dtype.is_integer or spec.shape.rank != 1:
            there = ", ".join(f"{k} ({getattr(v, 'dtype', v)})" for k, v in dataset.element_spec.items())
            raise UserError(
                f"task {task.name}: after its preprocessors {key!r} is not a list of tokens (found: {there}); add "
                "seqio.preprocessors.tokenize and seqio.preprocessors.append_eos"
            )
    return dataset


def _plain(value: Any) -> Any:
    """Converts a value of TensorFlow to JSON; bytes that are not UTF-8 become surrogates."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, tf.compat.v1.ragged.RaggedTensorValue):
        return _plain(value.to_list())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value

"""A tiny model and a training set in memory: enough for the trainer, which knows only protocols."""

import jax
import numpy as np

from lmirl_jax import sharding
from lmirl_jax.models import T5Config
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.types import Batch

TINY = T5Config(
    vocab_size=128,
    emb_dim=16,
    num_heads=4,
    head_dim=4,
    mlp_dim=32,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.1,
)


def make_batch(seed: int, rows: int, inputs: int = 7, length: int = 6) -> Batch:
    """Random rows of random length; the targets of every third one are truncated."""
    random = np.random.default_rng(seed)
    encoder = random.integers(3, 100, (rows, inputs)).astype(np.int32)
    targets = random.integers(3, 100, (rows, length)).astype(np.int32)
    examples = []
    for row, size in enumerate(random.integers(2, length + 1, rows)):
        targets[row, size - 1] = 1 if row % 3 > 0 else 5
        examples.append(
            example_row(
                encoder[row],
                targets[row, :size],
                lengths={"inputs": inputs, "targets": length},
                eos_ids=(1,),
                discount=1.0,
            )
        )
    return stack_rows(examples)


class FakeIterator:
    def __init__(self, batch_size: int, rows):
        self._batch_size, self._rows, self._next = batch_size, rows, 0

    def __iter__(self):
        return self

    def __next__(self) -> Batch:
        batch = make_batch(self._next, self._batch_size)
        self._next += 1
        return jax.tree.map(lambda x: x[self._rows], batch)

    def get_state(self):
        return {"next_batch": self._next}

    def set_state(self, state):
        self._next = state["next_batch"]


class FakeData:
    def __init__(self, batch_size: int = 16):
        self.batch_size, self.vocab_size, self.rows_together = batch_size, 100, 1
        self.has_rewards = self.has_labels = self.has_preferences = self.packed = False
        self.lengths = {"inputs": 7, "targets": 6}

    def iterator(self, rows) -> FakeIterator:
        return FakeIterator(self.batch_size, rows)


def mesh_of(count: int, data: int, fsdp: int, tensor: int, **options):
    """A mesh over the first `count` of the devices that tests force."""
    with sharding.use_devices(jax.devices()[:count]):
        return sharding.make_mesh(data, fsdp, tensor, **options)


def global_batch(mesh, seed: int = 0, rows: int = 16) -> Batch:
    return sharding.to_global(mesh, make_batch(seed, rows), rows)

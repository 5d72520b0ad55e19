"""A tiny model without dropout, prompts in memory that can be read, and whole runs on them."""

import dataclasses
import json

from lmirl_jax import training
from tests.training.fakes import TINY, FakeData, mesh_of

MODEL = dataclasses.replace(TINY, dropout_rate=0.0)


class Prompts(FakeData):
    """The fake training set, as prompts that can be read: a text is its tokens as numbers."""

    def __init__(self, batch_size: int = 16):
        super().__init__(batch_size)
        self.lengths, self.buckets = {"inputs": 7, "targets": 6}, 1
        self.eos_ids = (1,)

    def decode_inputs(self, tokens) -> str:
        return " ".join(str(int(token)) for token in tokens)

    decode = decode_inputs

    def decode_against(self, tokens, reference) -> str:
        return self.decode(tokens)


def train(model_dir, train_steps, **settings):
    """The whole trainer on the fake data, with a checkpoint after every update."""
    common = {
        "optimizer": training.adamw(1e-2),
        "data": FakeData(),
        "mesh": mesh_of(2, 2, 1, 1),
        "checkpoint": training.CheckpointConfig(period=1),
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), train_steps=train_steps, **common | settings)


def lines(model_dir):
    """Those of metrics.jsonl, without times."""
    found = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in found]

"""The same examples in rows of several forms, some updates on them, and the comparison of what these leave."""

import functools

import jax
import numpy as np
import optax

from lmirl_jax import objectives, sharding, training
from lmirl_jax.data import Packer
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_state, state_shardings
from tests.training.fakes import mesh_of

KEY = jax.random.key(0)
EOS = 1
LENGTHS = {"inputs": 10, "targets": 16}


def examples():
    """Prompts and answers of all kinds: weighted, rewarded, truncated by themselves or by the row, and conversations."""
    random = np.random.default_rng(0)

    def tokens(size, ends=True):
        ids = random.integers(3, 60, size).astype(np.int32)
        ids[-1:] = EOS if ends else 7
        return ids

    found = [(tokens(1 + size % 4), tokens(size), {}) for size in (2, 3, 4, 5, 6, 7)]
    found.append((tokens(3), tokens(4), {"weight": 2.5}))
    found.append((tokens(2), tokens(3), {"weight": 0.0}))
    found.append((tokens(2), tokens(3), {"rewards": np.array([0.5, -1.0, 2.0], np.float32)}))
    found.append((tokens(4), tokens(3, ends=False), {"weight": 0.5}))
    found.append((tokens(13), tokens(20), {}))
    conversation = tokens(9)
    conversation[2] = EOS
    found.append((tokens(3), conversation, {"turns": [(0, 3), (6, 9)], "weight": 1.5}))
    return found


def batch_of(packed, episodes="turns"):
    """The batch of all examples, in as many rows as they need or in one each, with a few rows of padding."""
    rows = 6 if packed else 12
    settings = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (EOS,), "episodes": episodes}
    packer = Packer(rows, packed=packed, with_rewards=True, **settings)
    for inputs, targets, more in examples():
        assert packer.add(inputs, targets, **more) is not None
    return packer.batch()


def train(
    config, batch, steps=3, microbatches=1, mesh=None, loss=training.TokenLoss(objectives.iqlearn, 0.3)
):
    """The parameters and the metrics of some steps, by default on one device and of IQLearn."""
    mesh, optimizer = mesh or mesh_of(1, 1, 1, 1), optax.sgd(0.05)
    graph, _ = build(config)
    _, shardings = state_shardings(mesh, config, optimizer)
    step = functools.partial(
        training.train_step, graph=graph, loss=loss, optimizer=optimizer, key=KEY, microbatches=microbatches
    )
    history = []
    with sharding.use(mesh):
        state = init_state(shardings, config, optimizer, KEY)
        update, rows = jax.jit(step), jax.device_put(batch, sharding.batch_sharding(mesh))
        for _ in range(steps):
            state, metrics = update(state, rows)
            history.append({name: float(value) for name, value in jax.device_get(metrics).items()})
    return jax.device_get(state.params), history


def assert_same(one, other):
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"padding_share"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one[0], other[0])

"""Each network in bfloat16 on eight devices, two to a matrix: the training of one device, within bfloat16's noise."""

import dataclasses
import functools

import jax
import optax
import pytest

from lmirl_jax import objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_state, state_shardings
from tests.models.families import FAMILIES
from tests.training.fakes import global_batch, mesh_of

KEY = jax.random.key(0)
# The relative size of bfloat16's last digit. Losses differ by one or two between two orders of summation; the norms of
# gradients, which pass through more roundings, by a few more.
NOISE = 2.0**-8


def train(config, mesh, steps: int = 4) -> list[dict[str, float]]:
    """The metrics of each step of IQLearn."""
    optimizer = optax.sgd(0.05)
    graph, _ = build(config)
    _, shardings = state_shardings(mesh, config, optimizer)
    step = functools.partial(
        training.train_step,
        graph=graph,
        loss=training.TokenLoss(objectives.iqlearn, 0.1),
        optimizer=optimizer,
        key=KEY,
        microbatches=1,
    )
    with sharding.use(mesh):
        state = init_state(shardings, config, optimizer, KEY)
        update = jax.jit(step, out_shardings=(shardings, None))
        history = []
        # The same batch in each step, so that the loss falls.
        batch = global_batch(mesh, 0, 8)
        for _ in range(steps):
            state, metrics = update(state, batch)
            history.append({name: float(value) for name, value in jax.device_get(metrics).items()})
    return history


# That every family computes on eight devices what it does on one, and in bfloat16 too: tests/models/test_families.py.
@pytest.mark.e2e
@pytest.mark.default_compiler
@pytest.mark.parametrize("name", ["t5_1_1", "gemma3"])
def test_bfloat16_on_eight_devices_is_that_of_one(name):
    config = dataclasses.replace(FAMILIES[name], vocab_size=128, dtype="bfloat16")
    alone = train(config, mesh_of(1, 1, 1, 1))
    shared = train(config, mesh_of(8, 2, 2, 2))
    exact = train(dataclasses.replace(config, dtype="float32"), mesh_of(1, 1, 1, 1))
    assert shared[-1]["loss"] < shared[0]["loss"]
    for step, (one, eight, truth) in enumerate(zip(alone, shared, exact, strict=True)):
        for key in ("loss", "loss_mle", "entropy"):
            assert eight[key] == pytest.approx(one[key], rel=2 * NOISE), (step, key)
            assert eight[key] == pytest.approx(truth[key], rel=2 * NOISE), (step, key)
        assert eight["target_tokens"] == one["target_tokens"]
        if step == 0:
            # Later steps begin at parameters that differ by the noise, which a gradient's norm magnifies.
            assert eight["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=8 * NOISE)

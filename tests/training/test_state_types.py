"""What an update keeps in float32 where the network computes in bfloat16, and that the memory of the state is reused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from lmirl_jax import compilation, objectives, sharding, training
from lmirl_jax.training import microbatches, step
from tests.models.families import FAMILIES
from tests.training.fakes import mesh_of

DATA = compilation.AbstractData(8, {"inputs": 8, "targets": 8})


@pytest.mark.parametrize(
    "optimizer", [training.adamw(1e-3), training.adafactor(1e-3)], ids=["adamw", "adafactor"]
)
@pytest.mark.parametrize("name", ["t5_1_1", "t5gemma", "gemma3"])
def test_bfloat16_has_float32_parameters_sums_and_moments(name, optimizer, monkeypatch):
    """Nothing is computed: the update is traced, and its memory is read off the program."""
    sums = []

    def add_up(gradient, params, *rest):
        found = microbatches.sum_over_parts(gradient, params, *rest)
        sums.extend(jax.tree.leaves(found[0]))
        return found

    monkeypatch.setattr(step, "sum_over_parts", add_up)
    config = dataclasses.replace(FAMILIES[name], vocab_size=128, dtype="bfloat16")
    setting = training.make_setting(config, optimizer, DATA, mesh_of(8, 2, 2, 2), microbatches=2)
    updates = training.Offline(objectives.iqlearn, 0.1).start(setting)
    with sharding.use(setting.mesh):
        traced = updates.step.trace(updates.shapes, DATA.batch())
    state, _ = traced.out_info
    kept = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    assert len(kept) > 10 and {str(leaf.dtype) for leaf in (*kept, *sums)} == {"float32"}
    assert len(sums) == len(jax.tree.leaves(updates.shapes.params))
    # The network itself computes in bfloat16.
    products = [line for line in str(traced.jaxpr).splitlines() if "dot_general" in line]
    assert any(":bf16[" in line for line in products)
    # Every array of the state is replaced by the next one in its own memory.
    text = traced.lower().as_text()
    donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    assert donated == len(jax.tree.leaves(updates.shapes))

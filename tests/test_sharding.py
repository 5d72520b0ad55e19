"""Meshes, rows and parameters: where things lie, and what does not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lmirl_jax import sharding
from lmirl_jax.models import T5Config
from lmirl_jax.training.state import build
from lmirl_jax.types import UserError
from tests.training.fakes import make_batch, mesh_of

CONFIG = T5Config(
    128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=1
)


def test_one_axis_takes_what_the_others_leave():
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}
    assert dict(sharding.make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, r"data=3 x fsdp=1 x tensor=1 does not fit the 8 device\(s\)"),
        ({"data": -1, "tensor": 3}, "does not fit the 8"),
        ({"data": -1, "fsdp": -1}, "at most one axis is -1"),
        ({"data": 0}, "data=0 must be a whole number of 1 or more, or -1"),
    ],
)
def test_a_mesh_that_does_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(**sizes)


def test_parameters_follow_their_logical_axes():
    _, state = build(CONFIG, jax.random.key(0))
    specs = sharding.parameter_shardings(mesh_of(8, 2, 2, 2), state)
    assert specs["token_embedder"].spec == PartitionSpec("tensor", "fsdp")
    assert specs["decoder"]["layers"]["mlp"]["wo"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert specs["encoder"]["relpos_bias"]["rel_embedding"].spec == PartitionSpec("tensor", None)


def test_a_mesh_that_does_not_divide_a_parameter():
    _, state = build(CONFIG, jax.random.key(0))
    with pytest.raises(UserError, match=r"tensor=4 does not divide heads=2 of .*: set .*make_mesh.tensor"):
        sharding.parameter_shardings(mesh_of(8, 2, 1, 4), state)


@pytest.mark.parametrize(
    ("batch", "microbatches", "nearest"), [(15, 1, "12 or 16"), (3, 1, "4"), (12, 2, "8 or 16")]
)
def test_a_batch_that_cannot_be_split(batch, microbatches, nearest):
    mesh = mesh_of(8, 2, 2, 2)
    with pytest.raises(UserError, match=rf"BATCH_SIZE={batch} .*\(such as {nearest}\)"):
        sharding.check_batch_size(mesh, batch, microbatches)
    sharding.check_batch_size(mesh, 16, microbatches)


def test_rows_go_where_the_batch_is_split():
    """Data 2 x fsdp 2: four parts of the rows, each on the two devices of its tensor group."""
    mesh = mesh_of(8, 2, 2, 2)
    assert sharding.local_rows(mesh, 8) == slice(0, 8)
    batch = make_batch(0, 8)
    placed = sharding.to_global(mesh, batch, 8)
    np.testing.assert_array_equal(placed.tokens, batch.tokens)
    rows = [shard.index[0].indices(8)[:2] for shard in placed.weights.addressable_shards]
    assert sorted(rows) == sorted([(0, 2), (2, 4), (4, 6), (6, 8)] * 2)

"""Meshes, rows and parameters: where things lie, and what does not fit."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lmirl_jax import sharding
from lmirl_jax.models import T5Config
from lmirl_jax.models.abstract import build
from lmirl_jax.sharding import meshes
from lmirl_jax.types import UserError
from tests.tpus import compiled_for, tpus
from tests.training.fakes import make_batch, mesh_of

CONFIG = T5Config(
    128, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=16, num_encoder_layers=1, num_decoder_layers=1
)


def test_one_axis_takes_what_the_others_leave():
    assert tuple(sharding.make_mesh().shape.items()) == (
        ("slices", 1),
        ("data", 8),
        ("fsdp", 1),
        ("sequence", 1),
        ("tensor", 1),
    )
    assert sharding.describe_mesh(sharding.make_mesh(2, -1, 2)) == "data=2 x fsdp=2 x tensor=2"
    assert sharding.describe_mesh(sharding.make_mesh(1, 1, sequence=-1, slices=2)) == "slices=2 x sequence=4"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 3}, r"mesh data=3 does not fit the 8 device\(s\)"),
        ({"data": -1, "tensor": 3}, "does not fit the 8"),
        ({"data": -1, "fsdp": -1}, "at most one axis is -1"),
        ({"data": 1, "sequence": -1, "slices": 3}, "mesh slices=3 x sequence=-1 does not fit the 8"),
        ({"slices": -1}, "slices=-1 must be a whole number of 1 or more, or None"),
        ({"data": 0}, "data=0 must be a whole number of 1 or more, or -1"),
    ],
)
def test_a_mesh_that_does_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(**sizes)


def test_a_mesh_over_given_devices():
    """`lmirl compile` builds meshes for chips that this machine lacks; afterwards a mesh is over all devices again."""
    given = jax.devices()[2:6]
    with sharding.use_devices(given):
        mesh = sharding.make_mesh(tensor=2)
        with pytest.raises(UserError, match=r"does not fit the 4 device\(s\)"):
            sharding.make_mesh(fsdp=8)
    assert sharding.describe_mesh(mesh) == "data=2 x tensor=2" and set(mesh.devices.flat) == set(given)
    assert sharding.make_mesh().size == 8


def test_the_first_axis_goes_over_slices():
    """Only `slices` crosses the slow network: all chips of one of its parts are of one slice."""
    order = meshes.arrange((2, 2, 4, 1, 2), tpus("TPU v5 lite", (4, 4), 2))
    assert order.shape == (2, 2, 4, 1, 2)
    assert [{chip.slice_index for chip in part.flat} for part in order] == [{0}, {1}]
    # Both slices have the same order, and chips that share a tensor axis are neighbours.
    assert [chip.id % 16 for chip in order[0].flat] == [chip.id % 16 for chip in order[1].flat]
    for pair in order.reshape(-1, 2):
        assert sum(abs(a - b) for a, b in zip(pair[0].coords, pair[1].coords)) == 1


@pytest.mark.parametrize("sizes", [{"slices": 1}, {"slices": 4}, {"slices": 1, "data": 1, "fsdp": -1}])
def test_a_mesh_that_ignores_slices(sizes):
    message = r"in 2 slices: set .*\.slices to 2"
    with sharding.use_devices(tpus("TPU v5 lite", (4, 4), 2)), pytest.raises(UserError, match=message):
        sharding.make_mesh(**sizes)


def test_parameters_follow_their_logical_axes():
    _, state = build(CONFIG)
    specs = sharding.parameter_shardings(mesh_of(8, 2, 2, 2), state)
    assert specs["token_embedder"].spec == PartitionSpec("tensor", "fsdp")
    assert specs["decoder"]["layers"]["mlp"]["wo"]["kernel"].spec == PartitionSpec(None, "tensor", "fsdp")
    assert specs["encoder"]["relpos_bias"]["rel_embedding"].spec == PartitionSpec("tensor", None)


def test_rules_can_be_changed_for_a_mesh():
    """Parameters split over `sequence` too, as their copies there would hold the same."""
    _, state = build(CONFIG)
    rules = {"embed": ("fsdp", "sequence"), "vocab": None}
    specs = sharding.parameter_shardings(mesh_of(8, 2, 2, 1, sequence=2, logical_axis_rules=rules), state)
    assert specs["token_embedder"].spec == PartitionSpec(None, ("fsdp", "sequence"))
    specs = sharding.parameter_shardings(mesh_of(8, 2, 2, 1, sequence=2), state)
    assert specs["token_embedder"].spec == PartitionSpec("tensor", "fsdp")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"embeds": None}, r"logical_axis_rules: 'embeds' is no logical axis: did you mean 'embed'\?"),
        ({"x": None}, "'x' is no logical axis: there are batch, length"),
        ({"embed": "fdsp"}, r"logical_axis_rules\['embed'\]: 'fdsp' is no mesh axis: did you mean 'fsdp'\?"),
        ({"mlp": ("tensor", "data2")}, r"did you mean 'data'\?"),
        ({"batch": None}, "the rule of 'batch' cannot be changed"),
    ],
)
def test_rules_that_name_nothing(rules, message):
    with pytest.raises(UserError, match=message):
        sharding.make_mesh(logical_axis_rules=rules)


def test_rules_that_split_two_axes_of_a_parameter():
    _, state = build(CONFIG)
    mesh = mesh_of(8, 1, 8, 1, logical_axis_rules={"mlp": "fsdp"})
    with pytest.raises(UserError, match="fsdp would split both embed and mlp of decoder/layers/mlp/w"):
        sharding.parameter_shardings(mesh, state)
    mesh_of(8, 1, 8, 1)


def test_a_mesh_that_does_not_divide_a_parameter():
    _, state = build(CONFIG)
    with pytest.raises(UserError, match=r"tensor=4 does not divide heads=2 of .*: set .*make_mesh.tensor"):
        sharding.parameter_shardings(mesh_of(8, 2, 1, 4), state)


def test_lengths_that_cannot_be_split():
    mesh = mesh_of(8, 2, 1, 1, sequence=4)
    with pytest.raises(
        UserError, match=r"13 tokens of targets .*sequence=4: .* multiple of 4 \(such as 12 or 16\)"
    ):
        sharding.check_lengths(mesh, {"inputs": 16, "targets": 13})
    sharding.check_lengths(mesh, {"inputs": 16, "targets": 12})


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
    np.testing.assert_array_equal(sharding.local_rows(mesh, 8), np.arange(8))
    batch = make_batch(0, 8)
    placed = sharding.to_global(mesh, batch, 8)
    np.testing.assert_array_equal(placed.tokens, batch.tokens)
    rows = [shard.index[0].indices(8)[:2] for shard in placed.weights.addressable_shards]
    assert sorted(rows) == sorted([(0, 2), (2, 4), (4, 6), (6, 8)] * 2)


def test_rows_of_a_host_of_tpus_lie_apart(monkeypatch):
    """Of a real slice: the ring of 16 chips comes through some hosts of four twice, and each has a quarter of the rows."""
    with sharding.use_devices(compiled_for("v5e:4x4", monkeypatch)):
        mesh = sharding.make_mesh(data=1, fsdp=16)
    hosts = {}
    for part, device in enumerate(mesh.devices.flat):
        hosts.setdefault(device.process_index, []).extend([2 * part, 2 * part + 1])
    assert len(hosts) == 4 and any(np.diff(rows).max() > 1 for rows in hosts.values())
    np.testing.assert_array_equal(sharding.local_rows(mesh, 32), hosts[0])


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", None),
        ("cpu", None),
    ],
)
def test_peaks_are_found_by_the_names_of_devices(kind, flops):
    assert sharding.peak_flops(kind) == flops


def test_options_of_the_compiler_are_those_of_the_chip_and_the_user_goes_before(monkeypatch):
    name = "xla_jf_spmd_threshold_for_windowed_einsum_mib"
    for variable in ("LIBTPU_INIT_ARGS", "XLA_FLAGS"):
        monkeypatch.delenv(variable, raising=False)
    assert sharding.compiler_options(mesh_of(8, 8, 1, 1)) is None
    with sharding.use_devices(tpus("TPU v5 lite", (4, 4))):
        mesh = sharding.make_mesh()
    assert sharding.compiler_options(mesh) == {name: str(2**20)}
    with sharding.use_devices(tpus("TPU v5", (2, 2, 1))):
        assert sharding.compiler_options(sharding.make_mesh()) is None
    monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--xla_tpu_scoped_vmem_limit_kib=65536 --{name}=0")
    assert sharding.compiler_options(mesh) is None

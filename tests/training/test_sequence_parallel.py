"""Rows split over the mesh axis `sequence`: the loss and the gradients are those of rows on one device."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.rows import prompts_of
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.models.families import FAMILIES
from tests.training.fakes import make_batch, mesh_of

KEY = jax.random.key(0)
MESHES = {
    "sequence": {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 8},
    "all": {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2},
    "slices": {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 4, "slices": 2},
}


class Setting:
    """The loss of a family on a mesh: MLE where lambda is 0, IQLearn elsewhere."""

    def __init__(self, name: str, mesh, block_size: int | None = None, lengths: tuple[int, int] = (16, 8)):
        self.mesh = mesh
        config = dataclasses.replace(FAMILIES[name], vocab_size=128)
        graph, variables = build(config)
        self.places = sharding.parameter_shardings(mesh, variables)
        self.make = functools.partial(init_params, config)
        self.batch = make_batch(3, 4, *lengths)

        def loss(params, batch, td_weight):
            model, soft_q = nnx.merge(graph, params), training.SoftQConfig(block_size=block_size)
            return training.loss_sums(model, objectives.iqlearn, batch, td_weight, None, soft_q)["loss"].total

        self.gradient = jax.jit(jax.value_and_grad(loss))

    def arguments(self, td_weight: float):
        params = jax.jit(self.make, out_shardings=self.places)(KEY)
        return params, sharding.to_global(self.mesh, self.batch, 4), jnp.float32(td_weight)

    def compute(self, td_weight: float):
        """The loss of the batch, and its gradient by every parameter."""
        with sharding.use(self.mesh):
            return jax.device_get(self.gradient(*self.arguments(td_weight)))

    def flops(self) -> float:
        """The operations of one device, those of one layer in place of all."""
        with sharding.use(self.mesh):
            return self.gradient.lower(*self.arguments(0.5)).compile().cost_analysis()["flops"]


@functools.cache
def alone(name: str) -> Setting:
    return Setting(name, mesh_of(1, 1, 1, 1))


def check(setting: Setting, expected: Setting) -> None:
    for td_weight in (0.0, 0.5):
        (loss, gradient), (whole_loss, whole) = setting.compute(td_weight), expected.compute(td_weight)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        pairs = zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(whole), strict=True)
        for (path, part), of_one in pairs:
            atol = 1e-5 * np.abs(of_one).max()
            np.testing.assert_allclose(part, of_one, rtol=1e-4, atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_what_one_device_does(name):
    """With IQLearn the value of the next token may be on another device than its reward."""
    check(Setting(name, mesh_of(8, **MESHES["all"])), alone(name))


@pytest.mark.parametrize("mesh", ["sequence", "slices"])
@pytest.mark.parametrize("block_size", [0, 4], ids=["dense", "blocked"])
def test_tokens_one_by_one(mesh, block_size):
    """With eight parts of answers of eight tokens, every next token is on another device."""
    check(Setting("t5_1_1", mesh_of(8, **MESHES[mesh]), block_size), alone("t5_1_1"))


@pytest.mark.parametrize("block_size", [0, 4], ids=["dense", "blocked"])
def test_parameters_split_over_the_same_axis(block_size):
    rules = {"embed": ("fsdp", "sequence")}
    check(
        Setting("t5_1_1", mesh_of(8, **MESHES["all"], logical_axis_rules=rules), block_size), alone("t5_1_1")
    )
    mesh_of(8, **MESHES["all"])


@pytest.mark.parametrize("name", ["t5_1_1", "gemma2"])
def test_each_device_computes_its_part_of_the_rows(name):
    lengths = {"lengths": (64, 64)}
    split = Setting(name, mesh_of(8, **MESHES["sequence"]), **lengths).flops()
    assert split < Setting(name, mesh_of(1, 1, 1, 1), **lengths).flops() / 4


def test_sampling_from_a_decoder_only_model_is_refused():
    model = FAMILIES["gemma2"].build(KEY)
    with sharding.use(mesh_of(8, **MESHES["sequence"])), pytest.raises(UserError, match="sequence=8: set"):
        model.start_decoding(prompts_of(make_batch(3, 4, 16, 8)), 4)


@pytest.mark.parametrize("name", ["t5_1_1", "llama"])
def test_rows_that_cannot_be_split(name):
    setting = Setting(name, mesh_of(8, **MESHES["sequence"]), lengths=(12, 7))
    with pytest.raises(UserError, match=r"rows of (12|19) tokens .* sequence=8: .*TASK_FEATURE_LENGTHS.* 8,"):
        setting.compute(0.0)

"""Compiles the programs of a run ahead of time: the update that `training.train` makes, and the sampler of its evaluations.

Neither parameters nor data are made: only their shapes and shardings are given to the compiler.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from lmirl_jax import sharding, tiles
from lmirl_jax.compilation.abstract_data import AbstractData
from lmirl_jax.compilation.summary import Summary, summarize
from lmirl_jax.compilation.topologies import uncached
from lmirl_jax.models.abstract import build
from lmirl_jax.models.model_flops import is_product
from lmirl_jax.online import OnlineIQLearn
from lmirl_jax.sharding import Chip
from lmirl_jax.training import Learner, Offline, Setting
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class DoesNotFit:
    """A program for which a chip has too little memory; `reason` is the compiler's."""

    reason: str
    seconds: float


def compile_update(
    setting: Setting, learner: Learner, data: AbstractData, chip: Chip
) -> Summary | DoesNotFit:
    """Compiles the update of a run for the devices of its mesh, and says what it takes of each.

    Args:
        setting: the settings of the run, as `training.make_setting` makes them; its mesh may be of devices that are not there.
        learner: what an update is.
        data: the shapes of the demonstrations.
        chip: the kind of device.
    """
    mesh, updates = setting.mesh, learner.start(setting)
    rows = _rows(learner, setting)
    needed = None if rows is None else setting.model_flops(rows, data.lengths)
    if rows is not None and needed is None:
        raise UserError("lmirl compile knows whole models, not adapters: leave gin/adapters/ out")
    # It is jitted, with its shardings and its donation.
    step: Any = updates.step
    with sharding.use(mesh):
        compiled, seconds = _compile(step.lower(updates.shapes, data.batch()))
        if isinstance(compiled, DoesNotFit):
            return compiled
        turns, logits = _softmax_blocks(setting, rows or data.batch_size, data.lengths["targets"], learner)
    recomputed = _recomputed_logits(setting, data, rows or data.batch_size) if turns else 0.0
    return summarize(
        compiled,
        chip,
        dict(mesh.shape),
        seconds,
        None if needed is None else needed / mesh.size,
        turns,
        recomputed / mesh.size,
        logits,
    )


def compile_sampler(setting: Setting, generator: Any, data: AbstractData, chip: Chip) -> Summary | DoesNotFit:
    """Compiles the sampler of an evaluation for the devices of a mesh, every answer as long as it may be."""
    mesh, (shapes, places) = setting.mesh, setting.policy_state
    params = jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        shapes.params,
        places.params,
    )
    prompts = dataclasses.replace(data, batch_size=generator.batch_size)
    generator.check(mesh)
    whole = sharding.batch_sharding(mesh)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), prompts.batch())
    compiled, seconds = _compile(generator.lower(setting.graph, params, mesh, batch, data.eos_ids))
    if isinstance(compiled, DoesNotFit):
        return compiled
    turns = generator.max_length or data.lengths["targets"]
    return summarize(compiled, chip, dict(mesh.shape), seconds, None, turns, 0.0, None)


def _compile(lowered: Any) -> tuple[Any, float]:
    """The compiled program, or a `DoesNotFit`, and the seconds that it took."""
    began = time.monotonic()
    try:
        with uncached():
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        text, seconds = str(error), time.monotonic() - began
        if "RESOURCE_EXHAUSTED" not in text:
            raise
        return DoesNotFit(re.sub(r"^RESOURCE_EXHAUSTED: ", "", text.splitlines()[0]), seconds), seconds
    return compiled, time.monotonic() - began


def _rows(learner: Learner, setting: Setting) -> int | None:
    """The rows that the loss of an update is taken of; None where that is not known of the learner."""
    if isinstance(learner, Offline):
        return setting.batch_size
    return setting.batch_size + learner.rollouts.rows if isinstance(learner, OnlineIQLearn) else None


def _softmax_blocks(setting: Setting, rows: int, length: int, learner: Any) -> tuple[int, tuple[int, int]]:
    """The blocks of real tokens of blocked soft Q-values, where every token is real; and the tokens and words of a device.

    The number of blocks is that of the loop whose turns depend on data; 0 where logits are computed at once.
    """
    shape = (rows // setting.microbatches, length)
    kernel = (setting.model.emb_dim, setting.model.vocab_size)
    tokens, words = tiles.local_sizes(shape, kernel)
    config = getattr(learner, "soft_q_config", None)
    tile = tiles.choose_tile(tokens, words, None if config is None else config.block_size)
    return (0 if tile is None else math.ceil(tokens / tile.tokens)), (tokens, words)


def _recomputed_logits(setting: Setting, data: AbstractData, rows: int) -> float:
    """The operations with which the backward pass of blocked soft Q-values computes the logits again."""
    return 2.0 * rows * data.lengths["targets"] * setting.model.emb_dim * setting.model.vocab_size


def count_parameters(setting: Setting) -> tuple[int, int]:
    """The numbers of all parameters, and of those of matrix products within layers."""
    axes = sharding.logical_axes(build(setting.model)[1])
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(setting.policy_state[0].params)
    }
    return sum(sizes.values()), sum(size for path, size in sizes.items() if is_product(path, axes[path]))

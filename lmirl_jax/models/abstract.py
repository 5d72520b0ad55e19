"""Networks without arrays: their graphs, and the shapes, the logical axes and the number of their parameters."""

import functools
import math
from typing import Any

import jax
from flax import nnx

from lmirl_jax.types import NetworkConfig


@functools.lru_cache(maxsize=64)
def _trace(config: NetworkConfig) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: config.build(jax.random.key(0))))


def build(config: NetworkConfig) -> tuple[nnx.GraphDef, nnx.State]:
    """Builds a network without arrays: its graph, and its state with shapes and logical axes. A recipe is traced only once."""
    # A recipe of a user's own may hold a list.
    trace = _trace if _is_hashable(config) else _trace.__wrapped__
    graph, state = trace(config)
    return graph, jax.tree.map(lambda shape: shape, state)  # A copy, because a State can be changed.


def _is_hashable(config: NetworkConfig) -> bool:
    try:
        hash(config)
    except TypeError:
        return False
    return True


def parameter_shapes(config: NetworkConfig) -> dict[str, Any]:
    """The `jax.ShapeDtypeStruct` of each parameter of a network, as a nested dict."""
    return nnx.to_pure_dict(build(config)[1])


def parameter_count(config: NetworkConfig) -> int:
    """The number of parameters of a network; embeddings that are the output layer too count once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(config)))

"""How large a network is."""

import math

import jax
from flax import nnx

from lmirl_jax.types import NetworkConfig


def parameter_count(config: NetworkConfig) -> int:
    """The number of parameters of a network, without making any; embeddings that are the output layer too count once."""
    shapes = jax.eval_shape(lambda key: nnx.state(config.build(key)), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

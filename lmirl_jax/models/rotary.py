"""Rotary positions: each pair of a head's dimensions is rotated by an angle that grows with the position.

Source: https://arxiv.org/abs/2104.09864.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# The cosines and sines of each position and pair of dimensions.
Rotation = tuple[Float[Array, "#batch 1 length pairs"], Float[Array, "#batch 1 length pairs"]]


def rotation(positions: Int[Array, "#batch length"], head_dim: int, theta: float) -> Rotation:
    """Cosines and sines of `position / theta ** (2 i / head_dim)` for each pair i of a head's dimensions, in float32.

    Args:
        positions: the position of each token, the same in all rows if there is only one.
        head_dim: the dimensions of a head; even.
        theta: the base of the wavelengths, which are 2 pi at i = 0.
    """
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies = (1.0 / theta**exponents)[None, None, None, :]
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "batch heads length head_dim"], by: Rotation
) -> Float[Array, "batch heads length head_dim"]:
    """Rotates queries or keys; dimension i forms a pair with dimension i + head_dim / 2. Computed in float32."""
    cos, sin = by
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)

"""Rotary positions: each pair of a head's dimensions is rotated by an angle that grows with the position.

Source: https://arxiv.org/abs/2104.09864.
"""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmirl_jax.arguments import Count, Positive, check_arguments
from lmirl_jax.types import UserError

# The cosines and sines of each position and pair of dimensions.
Rotation = tuple[Float[Array, "#batch 1 length pairs"], Float[Array, "#batch 1 length pairs"]]


@check_arguments
@dataclasses.dataclass(frozen=True)
class LinearRopeScaling:
    """Stretches all wavelengths, as Gemma 3 does in layers without a window.

    Args:
        factor: how many times as long the wavelengths become.
    """

    factor: Positive

    def __call__(self, frequencies: Float[Array, " pairs"]) -> Float[Array, " pairs"]:
        return frequencies / self.factor


@check_arguments
@dataclasses.dataclass(frozen=True)
class Llama3RopeScaling:
    """Stretches long wavelengths and keeps short ones, as Llama 3.1 and 3.2 do.

    A wavelength is short if `high_freq_factor` of them or more fit into the original length, and long if `low_freq_factor` or
    fewer do; between the two, the change is gradual.

    Args:
        factor: how many times as long the long wavelengths become.
        low_freq_factor, high_freq_factor: the numbers of wavelengths in the original length.
        original_length: the number of tokens that the model was first trained with.

    Raises:
        UserError: a value out of range.

    Source: https://arxiv.org/abs/2407.21783.
    """

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_length: Count

    def __post_init__(self):
        if self.low_freq_factor >= self.high_freq_factor:
            raise UserError(
                f"models.Llama3RopeScaling.low_freq_factor={self.low_freq_factor} must be below "
                f"high_freq_factor={self.high_freq_factor}"
            )

    def __call__(self, frequencies: Float[Array, " pairs"]) -> Float[Array, " pairs"]:
        fitting = self.original_length * frequencies / (2 * math.pi)
        share = (fitting - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = jnp.clip(share, 0.0, 1.0)
        return (1.0 - kept) * frequencies / self.factor + kept * frequencies


RopeScaling = LinearRopeScaling | Llama3RopeScaling


def rotation(
    positions: Int[Array, "#batch length"], head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> Rotation:
    """Cosines and sines of `position / theta ** (2 i / head_dim)` for each pair i of a head's dimensions, in float32.

    Args:
        positions: the position of each token, the same in all rows if there is only one.
        head_dim: the dimensions of a head; even.
        theta: the base of the wavelengths, which are 2 pi at i = 0.
        scaling: changes the frequencies; None for no change.
    """
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    frequencies = 1.0 / theta**exponents
    if scaling is not None:
        frequencies = scaling(frequencies)
    angles = positions[:, None, :, None].astype(jnp.float32) * frequencies[None, None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "batch heads length head_dim"], by: Rotation
) -> Float[Array, "batch heads length head_dim"]:
    """Rotates queries or keys; dimension i forms a pair with dimension i + head_dim / 2. Computed in float32."""
    cos, sin = by
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)

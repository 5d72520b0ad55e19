"""Divergences between the policy's occupancy and the expert's, as concave functions phi of the implied reward.

Each has phi(0) = 0 and slope 1 there, and `iqlearn` adds `(x - phi(x)) / (4 lambda)` at `x = 4 lambda r`, so that every
divergence starts as maximum likelihood and penalises the reward. At the optimum phi'(x) is the ratio of the policy's
occupancy to the expert's. Where phi has no value, or an absurd one, it continues as a straight line of finite slope above
1: a randomly initialised model has r near -log(vocabulary) and must find its way back. That slope caps the ratio.

Source: IQ-Learn, https://arxiv.org/abs/2106.12142; each phi is scaled to slope 1 at 0, and the lines are ours.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

CONTINUED_BELOW = -0.5
"""Where Hellinger, forward KL, Jensen-Shannon and total variation become straight lines, going down; a choice of ours."""

REVERSE_KL_CONTINUED_BELOW = -8.0
"""Where reverse KL becomes a straight line, going down: its slope exp(-x) is useless there (about 3,000); a choice of ours."""


def chi_squared(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Chi-squared, the paper's choice: `phi(x) = x - x ** 2 / 4`, for all x.

    Args:
        x: 4 lambda r, any shape, in nats.

    Returns:
        phi(x), of the shape of x. `iqlearn` then adds `lambda * r ** 2`.
    """
    return x - x**2 / 4


def hellinger(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Squared Hellinger: `phi(x) = x / (1 + x)`, below -1/2 the line of slope 4 that touches it there.

    Args and Returns as in `chi_squared`.
    """
    slope = 1 / (1 + CONTINUED_BELOW) ** 2
    return _continue_as_line(lambda y: y / (1 + y), x, CONTINUED_BELOW, slope)


def reverse_kl(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Reverse KL: `phi(x) = 1 - exp(-x)`, below -8 the line of slope exp(8) that touches it there.

    Args and Returns as in `chi_squared`.
    """
    slope = math.exp(-REVERSE_KL_CONTINUED_BELOW)
    return _continue_as_line(lambda y: -jnp.expm1(-y), x, REVERSE_KL_CONTINUED_BELOW, slope)


def forward_kl(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Forward KL: `phi(x) = log(1 + x)`, below -1/2 the line of slope 2 that touches it there.

    Args and Returns as in `chi_squared`.
    """
    return _continue_as_line(jnp.log1p, x, CONTINUED_BELOW, 1 / (1 + CONTINUED_BELOW))


def jensen_shannon(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Jensen-Shannon: `phi(x) = log(2 - exp(-x))`, below -1/2 the line of slope 4.69 that touches it there.

    Args and Returns as in `chi_squared`.
    """
    slope = 1 / (2 * math.exp(CONTINUED_BELOW) - 1)
    return _continue_as_line(lambda y: jnp.log1p(-jnp.expm1(-y)), x, CONTINUED_BELOW, slope)


def total_variation(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Total variation: `phi(x) = min(x, 1/2)`, below -1/2 the line `2 x + 1/2`.

    So `x - phi(x) = max(0, |x| - 1/2)`: no penalty, which is pure maximum likelihood, while |x| is below 1/2.

    Args and Returns as in `chi_squared`.
    """
    return jnp.minimum(jnp.minimum(x, 0.5), 2 * x - CONTINUED_BELOW)


def _continue_as_line(
    phi: Callable[[Array], Array], x: Float[Array, "*shape"], point: float, slope: float
) -> Float[Array, "*shape"]:
    """phi from `point` up, and below it the straight line of that slope through `(point, phi(point))`.

    phi never sees an argument below the point, so that nothing infinite arises in its value or gradient.
    """
    return phi(jnp.maximum(x, point)) + slope * jnp.minimum(x - point, 0.0)

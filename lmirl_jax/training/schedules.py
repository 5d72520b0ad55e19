"""Schedules of the learning rate and of lambda: functions of the number of updates. None depends on the length of the run."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmirl_jax.arguments import Count, NonNegative, Positive, Whole, check_arguments
from lmirl_jax.types import Schedule, UserError


@check_arguments
def constant(value: NonNegative) -> Schedule:
    """The same value at every step."""
    return lambda step: jnp.asarray(value, jnp.float32)


@check_arguments
def warmup_constant(peak: Positive, warmup_steps: Whole) -> Schedule:
    """Rises linearly to `peak` at update `warmup_steps`, then stays there. The first update has a rate above 0."""

    def rate(step):
        return peak * jnp.minimum(1.0, (step + 1.0) / max(warmup_steps, 1))

    return rate


@check_arguments
def warmup_rsqrt(peak: Positive, warmup_steps: Whole) -> Schedule:
    """Rises linearly to `peak`, then falls with the square root of the steps: peak * sqrt(warmup_steps / step)."""

    def rate(step):
        done, warm = step + 1.0, max(warmup_steps, 1)
        return peak * jnp.minimum(done / warm, jnp.sqrt(warm / done))

    return rate


@check_arguments
def rsqrt_decay(base: Positive = 1.0, warmup_steps: Whole = 10000, linear_warmup: bool = False) -> Schedule:
    """T5X's `constant * rsqrt_decay`, with `linear_warmup` its `constant * linear_warmup * rsqrt_decay`.

        base / sqrt(max(step, warmup_steps)) * min(1, step / warmup_steps)

    Args:
        base: T5X's base_learning_rate; without `linear_warmup` the rate begins at base / sqrt(warmup_steps).
        warmup_steps: the number of updates before the decay.
        linear_warmup: whether the last factor is used. As in T5X the first update then has rate 0; `warmup_rsqrt` is the same
            with a peak of base / sqrt(warmup_steps), one update earlier.
    """

    def rate(step):
        warm = max(warmup_steps, 1)
        factor = jnp.minimum(1.0, step / warm) if linear_warmup else 1.0
        return base * factor / jnp.sqrt(jnp.maximum(jnp.asarray(step, jnp.float32), warm))

    return rate


@check_arguments
def warmup_cosine(
    peak: Positive, warmup_steps: Whole, decay_steps: Count, end: NonNegative = 0.0
) -> Schedule:
    """Rises linearly to `peak` at update `warmup_steps`, then follows a cosine to `end` at `decay_steps`.

    The first update has a rate above 0, and the last update of a run of `decay_steps` has the rate `end`.
    """
    if decay_steps <= warmup_steps:
        raise UserError(
            f"schedule: decay_steps={decay_steps!r} counts the updates in all, those of the warm-up among them: it must be "
            f"above warmup_steps={warmup_steps!r}"
        )

    def rate(step):
        done = step + 1.0
        share = jnp.clip((done - warmup_steps) / (decay_steps - warmup_steps), 0.0, 1.0)
        falling = end + (peak - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * share))
        return jnp.where(done < warmup_steps, peak * done / max(warmup_steps, 1), falling)

    return rate


@check_arguments
def delayed_constant(value: NonNegative, start_step: Whole, ramp_steps: Whole = 0) -> Schedule:
    """Is 0 for `start_step` updates, then `value`: a lambda after a warm-up of pure MLE.

    With `ramp_steps` it rises linearly to `value` over this number of updates, of which the first is above 0.
    """

    def schedule(step):
        return value * jnp.clip((step + 1.0 - start_step) / max(ramp_steps, 1), 0.0, 1.0)

    return schedule


@check_arguments
def annealed(start: NonNegative, end: NonNegative, anneal_steps: Whole, start_step: Whole = 0) -> Schedule:
    """Is 0 for `start_step` updates, then goes linearly from `start` to `end` in `anneal_steps` updates: an annealed lambda."""

    def schedule(step):
        since = jnp.asarray(step - start_step, jnp.float32)
        share = jnp.clip(since / anneal_steps, 0.0, 1.0) if anneal_steps else 1.0
        return jnp.where(since < 0, 0.0, start + (end - start) * share)

    return schedule


def value_at(value: float | Schedule, step: Int[Array, ""]) -> Float[Array, ""]:
    """The value of a number or of a schedule at a step."""
    return jnp.asarray(value(step) if callable(value) else value, jnp.float32)

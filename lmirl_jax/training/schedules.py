"""Schedules of the learning rate and of lambda: functions of the number of updates made. None knows the run's length."""

import jax.numpy as jnp
import optax

from lmirl_jax.types import Schedule, UserError


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not isinstance(value, (int, float)) or value < 0:
            raise UserError(f"schedule: {name}={value!r} must be a number of 0 or more")


def constant(value: float) -> Schedule:
    """The same value at every step."""
    _check(value=value)
    return optax.constant_schedule(value)


def warmup_constant(peak: float, warmup_steps: int) -> Schedule:
    """Rises in a line to `peak`, reached at update `warmup_steps`, then stays. The first update is not a wasted 0."""

    _check(peak=peak, warmup_steps=warmup_steps)

    def rate(step):
        return peak * jnp.minimum(1.0, (step + 1.0) / max(warmup_steps, 1))

    return rate


def warmup_rsqrt(peak: float, warmup_steps: int) -> Schedule:
    """Rises in a line to `peak`, then falls with the square root of the steps: peak * sqrt(warmup_steps / step)."""

    _check(peak=peak, warmup_steps=warmup_steps)

    def rate(step):
        done, warm = step + 1.0, max(warmup_steps, 1)
        return peak * jnp.minimum(done / warm, jnp.sqrt(warm / done))

    return rate


def warmup_cosine(peak: float, warmup_steps: int, decay_steps: int, end: float = 0.0) -> Schedule:
    """Rises in a line to `peak`, then falls along a cosine to `end`, reached at step `decay_steps` in all."""
    _check(peak=peak, warmup_steps=warmup_steps, decay_steps=decay_steps, end=end)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, decay_steps, end)


def delayed_constant(value: float, start_step: int, ramp_steps: int = 0) -> Schedule:
    """0 for `start_step` updates, then a line to `value` over `ramp_steps`: lambda after a warm-up of pure MLE."""
    _check(value=value, start_step=start_step, ramp_steps=ramp_steps)
    return optax.linear_schedule(0.0, value, max(ramp_steps, 1), transition_begin=start_step)


def annealed(start: float, end: float, anneal_steps: int, start_step: int = 0) -> Schedule:
    """0 for `start_step` updates, then a line from `start` to `end` over `anneal_steps`: lambda, annealed."""
    _check(start=start, end=end, anneal_steps=anneal_steps, start_step=start_step)
    line = optax.linear_schedule(start, end, max(anneal_steps, 1))
    return optax.join_schedules([optax.constant_schedule(0.0), line], [start_step])

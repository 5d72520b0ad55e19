"""Schedules at hand-worked steps; none knows the length of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import training
from lmirl_jax.types import UserError


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (training.constant(0.3), {0: 0.3, 1: 0.3, 100: 0.3}),
        (training.warmup_constant(1e-3, 10), {0: 1e-4, 1: 2e-4, 8: 9e-4, 9: 1e-3, 10: 1e-3, 500: 1e-3}),
        (training.warmup_constant(1e-3, 0), {0: 1e-3, 1: 1e-3, 5: 1e-3}),
        (training.warmup_constant(1e-3, 1), {0: 1e-3, 1: 1e-3}),
        (training.warmup_rsqrt(1.0, 4), {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0, 4: 0.894427, 15: 0.5, 63: 0.25}),
        (training.warmup_rsqrt(1.0, 0), {0: 1.0, 1: 0.707107, 3: 0.5}),
        # T5X's two lines of factors, from 1 / sqrt(10000) on; sqrt(10001) is 100.005.
        (training.rsqrt_decay(), {0: 0.01, 1: 0.01, 9999: 0.01, 10000: 0.01, 10001: 0.0099995, 40000: 0.005}),
        (
            training.rsqrt_decay(2.0, 4, linear_warmup=True),
            {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 5: 0.894427, 16: 0.5},
        ),
        # A run of ten updates: the first is not 0, the second is the peak, the last, with number 9, is the end.
        (
            training.warmup_cosine(1.0, 2, 10, end=0.1),
            {0: 0.5, 1: 1.0, 2: 0.965746, 5: 0.55, 8: 0.134254, 9: 0.1, 10: 0.1, 50: 0.1},
        ),
        (training.warmup_cosine(1.0, 0, 2), {0: 0.5, 1: 0.0, 2: 0.0}),
        (training.warmup_cosine(1.0, 1, 2, end=0.2), {0: 1.0, 1: 0.2, 2: 0.2}),
        (training.delayed_constant(0.1, start_step=2), {0: 0.0, 1: 0.0, 2: 0.1, 3: 0.1, 50: 0.1}),
        (training.delayed_constant(0.1, start_step=0), {0: 0.1, 1: 0.1}),
        (training.delayed_constant(0.1, start_step=1), {0: 0.0, 1: 0.1}),
        (
            training.delayed_constant(0.5, start_step=2, ramp_steps=5),
            {0: 0.0, 1: 0.0, 2: 0.1, 4: 0.3, 5: 0.4, 6: 0.5, 7: 0.5, 50: 0.5},
        ),
        (training.delayed_constant(0.5, start_step=0, ramp_steps=2), {0: 0.25, 1: 0.5, 2: 0.5}),
        (
            training.annealed(0.5, 0.1, 4, start_step=2),
            {0: 0.0, 1: 0.0, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.2, 6: 0.1, 7: 0.1, 50: 0.1},
        ),
        (training.annealed(0.0, 1.0, 10), {0: 0.0, 1: 0.1, 5: 0.5, 9: 0.9, 10: 1.0, 11: 1.0, 99: 1.0}),
        (training.annealed(0.5, 0.1, 0, start_step=1), {0: 0.0, 1: 0.1, 2: 0.1}),
    ],
)
def test_values(schedule, expected, transform):
    for step, value in expected.items():
        np.testing.assert_allclose(transform(schedule)(jnp.asarray(step)), value, rtol=1e-5, atol=1e-8)


def test_a_delay_is_not_negative():
    with pytest.raises(UserError, match="start_step=-1"):
        training.delayed_constant(0.5, start_step=-1)


@pytest.mark.parametrize("decay_steps", [1, 9, 10])
def test_a_cosine_ends_after_its_warm_up(decay_steps):
    with pytest.raises(UserError, match=rf"decay_steps={decay_steps} .* above warmup_steps=10"):
        training.warmup_cosine(1.0, 10, decay_steps)

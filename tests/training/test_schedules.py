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
        (training.constant(0.3), {0: 0.3, 100: 0.3}),
        (training.warmup_constant(1e-3, 10), {0: 1e-4, 4: 5e-4, 9: 1e-3, 500: 1e-3}),
        (training.warmup_constant(1e-3, 0), {0: 1e-3, 5: 1e-3}),
        (training.warmup_rsqrt(1.0, 4), {0: 0.25, 3: 1.0, 15: 0.5, 63: 0.25}),
        (training.warmup_cosine(1.0, 2, 10, end=0.1), {0: 0.0, 2: 1.0, 6: 0.55, 10: 0.1, 50: 0.1}),
        (training.delayed_constant(0.5, start_step=3), {0: 0.0, 3: 0.0, 4: 0.5, 50: 0.5}),
        (training.delayed_constant(0.5, start_step=2, ramp_steps=5), {2: 0.0, 4: 0.2, 7: 0.5, 50: 0.5}),
        (training.annealed(0.5, 0.1, 4, start_step=2), {0: 0.0, 1: 0.0, 2: 0.5, 4: 0.3, 6: 0.1, 50: 0.1}),
        (training.annealed(0.0, 1.0, 10), {0: 0.0, 5: 0.5, 10: 1.0, 99: 1.0}),
    ],
)
def test_values(schedule, expected, transform):
    for step, value in expected.items():
        np.testing.assert_allclose(transform(schedule)(jnp.asarray(step)), value, rtol=1e-5, atol=1e-8)


def test_a_delay_is_not_negative():
    with pytest.raises(UserError, match="start_step=-1"):
        training.delayed_constant(0.5, start_step=-1)

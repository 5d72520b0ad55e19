"""The divergences: values by hand, their shape, and that nothing is lost far outside their domains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from lmirl_jax import objectives
from lmirl_jax.objectives import divergences
from tests.objectives.bandit import DIVERGENCES

E8, ROOT_E, LOG_2 = np.exp(8.0), np.exp(0.5), np.log(2.0)
LITERALS = {
    "chi_squared": [(1.0, 0.75), (2.0, 1.0), (-2.0, -3.0), (-12.0, -48.0)],
    "hellinger": [(1.0, 0.5), (3.0, 0.75), (-0.5, -1.0), (-2.0, -7.0)],
    "reverse_kl": [(LOG_2, 0.5), (-LOG_2, -1.0), (-8.0, 1 - E8), (-10.0, 1 - 3 * E8)],
    "forward_kl": [(1.0, LOG_2), (3.0, 2 * LOG_2), (-0.5, -LOG_2), (-2.0, -LOG_2 - 3)],
    "jensen_shannon": [
        (LOG_2, np.log(1.5)),
        (-np.log(1.5), -LOG_2),
        (-2.0, np.log(2 - ROOT_E) - 1.5 * ROOT_E / (2 - ROOT_E)),
    ],
    "total_variation": [(0.25, 0.25), (1.0, 0.5), (-0.25, -0.25), (-2.0, -3.5)],
}
POINTS = dict.fromkeys(DIVERGENCES, divergences.CONTINUED_BELOW) | {
    "reverse_kl": divergences.REVERSE_KL_CONTINUED_BELOW
}
LARGEST_SLOPES = {
    "hellinger": 4.0,
    "reverse_kl": E8,
    "forward_kl": 2.0,
    "jensen_shannon": 1 / (2 / ROOT_E - 1),
    "total_variation": 2.0,
}
every = pytest.mark.parametrize("name", DIVERGENCES)


@every
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(name, transform):
    x, phi = np.array(LITERALS[name]).T
    found = transform(DIVERGENCES[name])(jnp.asarray(x, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, phi, rtol=2e-6)


@every
def test_zero_with_slope_one_at_zero(name):
    phi = DIVERGENCES[name]
    assert phi(jnp.asarray(0.0)) == 0.0
    np.testing.assert_allclose(jax.grad(phi)(jnp.asarray(0.0)), 1.0, rtol=1e-6)


@every
def test_concave_with_falling_slope(name):
    with jax.enable_x64(True):
        x = jnp.linspace(-12.0, 6.0, 1801)
        slope = jax.vmap(jax.grad(DIVERGENCES[name]))(x)
        assert np.all(np.diff(slope) <= 1e-12)
        values = DIVERGENCES[name](x)
        assert np.all(values[1:-1] >= (values[:-2] + values[2:]) / 2 - 1e-9)
        assert np.all(values <= x + 1e-12)  # So the penalty x - phi(x) is never negative.


@pytest.mark.parametrize("name", LARGEST_SLOPES)
def test_continues_as_a_line(name):
    """Value and slope have no jump at the point (total variation's slope does), and below it nothing bends."""
    with jax.enable_x64(True):
        phi, point = DIVERGENCES[name], POINTS[name]
        below, above = jnp.asarray(point - 1e-9), jnp.asarray(point + 1e-9)
        at = phi(jnp.asarray(point))
        np.testing.assert_allclose([phi(below), phi(above)], [at, at], rtol=1e-7, atol=1e-7)
        slope = jax.grad(phi)
        if name != "total_variation":
            np.testing.assert_allclose(slope(above), slope(below), rtol=1e-7)
            np.testing.assert_allclose(slope(jnp.asarray(point)), slope(below), rtol=1e-12)
        for x in (point - 1e-3, point - 1.0, -1e3):
            np.testing.assert_allclose(slope(jnp.asarray(x)), LARGEST_SLOPES[name], rtol=1e-12)
        np.testing.assert_allclose(phi(jnp.asarray(-1e3)), at + LARGEST_SLOPES[name] * (-1e3 - point))


@every
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("x", [-1e6, -1e3, -12.0, -8.0, -1.0, -0.5, 0.5, 1e3, 1e6])
def test_finite_far_outside(name, wide, x):
    with jax.enable_x64(wide):
        x = jnp.asarray(x)
        value, slope = jax.value_and_grad(DIVERGENCES[name])(x)
        assert value.dtype == slope.dtype == x.dtype == (jnp.float64 if wide else jnp.float32)
        assert np.isfinite(value) and np.isfinite(slope)


def test_total_variation_has_a_dead_zone():
    x = jnp.array([-3.0, -0.6, -0.5, -0.1, 0.3, 0.5, 0.7, 40.0])
    np.testing.assert_allclose(
        x - objectives.total_variation(x), np.maximum(0, np.abs(x) - 0.5), rtol=1e-5, atol=1e-7
    )


@every
def test_gradient_against_finite_differences(name):
    with jax.enable_x64(True):
        x = jnp.array([-9.3, -3.1, -0.7, -0.45, -0.2, 0.1, 0.8, 5.0])
        check_grads(
            lambda y: DIVERGENCES[name](jnp.asarray(y)), (x,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5
        )

"""Maximum likelihood against hand-worked values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives, soft_q


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_literals(transform):
    logits = jnp.log(jnp.array([[[1.0, 3.0], [2.0, 6.0]]]))
    loss = transform(lambda x: objectives.mle(soft_q.from_logits(x, jnp.array([[1, 0]]))))(logits)
    np.testing.assert_allclose(loss, np.log([[4 / 3, 4.0]]), rtol=1e-6)


def test_a_constant_on_one_position_changes_nothing():
    logits = jax.random.normal(jax.random.key(0), (1, 3, 5))
    targets = jnp.array([[0, 4, 2]])
    shifted = logits.at[:, 1].add(7.0)
    before, after = (objectives.mle(soft_q.from_logits(x, targets)) for x in (logits, shifted))
    np.testing.assert_allclose(after, before, atol=2e-6)

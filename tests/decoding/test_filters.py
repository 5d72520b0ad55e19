"""Filters against literals and against sorting: who stays, ties, edges, the order in which they are applied."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax.decoding import Filters
from lmirl_jax.decoding.filters import min_p, top_k, top_p

# 1/8, 1/2, 1/4, 1/16, 1/16: sums of these are exact.
LOGITS = jnp.log(jnp.array([2.0, 8.0, 4.0, 1.0, 1.0])) - 3.0


def kept(logits) -> list[int]:
    return np.flatnonzero(np.isfinite(logits)).tolist()


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (top_k, 1, [1]),
        (top_k, 3, [0, 1, 2]),
        (top_k, 4, [0, 1, 2, 3]),  # Of two equal ones the first.
        (top_k, 0, [0, 1, 2, 3, 4]),
        (top_k, 5, [0, 1, 2, 3, 4]),
        (top_k, 100, [0, 1, 2, 3, 4]),
        (top_p, 1e-9, [1]),
        (top_p, 0.5, [1]),
        (top_p, 0.51, [1, 2]),
        (top_p, 0.75, [1, 2]),
        (top_p, 0.8, [0, 1, 2]),
        (top_p, 0.9, [0, 1, 2, 3]),
        (top_p, 0.95, [0, 1, 2, 3, 4]),
        (top_p, 1.0, [0, 1, 2, 3, 4]),
        (min_p, 0.0, [0, 1, 2, 3, 4]),
        (min_p, 0.12, [0, 1, 2, 3, 4]),
        (min_p, 0.2, [0, 1, 2]),
        (min_p, 0.4, [1, 2]),
        (min_p, 1.0, [1]),
    ],
)
def test_who_stays(transform, function, value, expected):
    out = transform(function)(LOGITS, value)
    assert kept(out) == expected
    np.testing.assert_array_equal(out[jnp.array(expected)], LOGITS[jnp.array(expected)])


def test_equal_logits_stay_in_the_order_of_their_numbers():
    level = jnp.zeros((4,))
    assert kept(top_k(level, 2)) == [0, 1]
    assert kept(top_p(level, 0.5)) == [0, 1] and kept(top_p(level, 0.6)) == [0, 1, 2]
    assert kept(min_p(level, 1.0)) == [0, 1, 2, 3]
    assert kept(top_k(jnp.array([-0.0, 0.0, -1.0]), 1)) == [0]


def test_top_p_is_of_what_top_k_left():
    """Of 1/2 and 1/4 the first holds 2/3: 0.6 keeps it alone, where without top-k it keeps two."""
    assert kept(Filters(top_p=0.6)(LOGITS)) == [1, 2]
    assert kept(Filters(top_k=2, top_p=0.6)(LOGITS)) == [1]
    assert kept(Filters(top_k=3, min_p=0.4)(LOGITS)) == [1, 2]
    assert kept(Filters()(LOGITS)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_sorting(seed):
    """Rows of their own, of both signs and with many ties."""
    logits = jnp.round(jax.random.normal(jax.random.key(seed), (4, 50)), 1 + seed)
    rows = np.asarray(logits)
    nucleus, best = top_p(logits, 0.7), top_k(logits, 7)
    for row, in_nucleus, in_best in zip(rows, nucleus, best, strict=True):
        order = np.argsort(-row, kind="stable")
        probabilities = np.exp(row[order].astype(np.float64))
        before = np.cumsum(probabilities) - probabilities
        assert kept(in_nucleus) == sorted(order[before < 0.7 * probabilities.sum()].tolist())
        assert kept(in_best) == sorted(order[:7].tolist())


def test_one_compilation_serves_all_values():
    calls = []

    @jax.jit
    def apply(filters, logits):
        calls.append(1)
        return filters(logits)

    for k, p, least in [(0, 1.0, 0.0), (2, 0.9, 0.1), (3, 0.5, 0.0)]:
        apply(Filters(k, p, least), LOGITS)
    assert len(calls) == 1

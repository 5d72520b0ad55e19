"""Microbatches: which rows share a part, and that the parts together are the batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax.training.microbatches import flatten_groups, group_rows, map_over_parts, sum_over_parts


def places(size, together, parts):
    """For each row the rows that its part holds, [parts, rows of a part], read off a sum of one-hot vectors."""

    def gradient(params, part, keys):
        rows = flatten_groups(part)
        held = jnp.zeros((size,)).at[rows].set(1.0)
        # Rows of one part meet each other in this matrix, and no others.
        return held[:, None] * held[None, :], {}

    rows = group_rows(jnp.arange(size), together)
    return np.asarray(sum_over_parts(gradient, None, rows, None, parts)[0])


@pytest.mark.parametrize(("together", "parts"), [(2, 2), (2, 4), (4, 2), (1, 8)])
def test_rows_that_belong_together_share_a_part(together, parts):
    meets = places(16, together, parts)
    np.testing.assert_array_equal(meets.sum(axis=0), 16 / parts)
    for first in range(0, 16, together):
        group = slice(first, first + together)
        np.testing.assert_array_equal(meets[group, group], 1)


def test_parts_come_back_in_the_order_of_the_batch():
    rows = jnp.arange(12).reshape(12, 1)
    np.testing.assert_array_equal(map_over_parts(lambda part: 2 * part, rows, 3), 2 * rows)


def test_groups():
    rows = jnp.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(group_rows(rows, 3)[1], rows[3:])
    np.testing.assert_array_equal(flatten_groups(group_rows(rows, 3)), rows)

import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from lmirl_jax.data.row_plan import PART, padding, places_needed, plan_rows

LENGTHS = {"inputs": 6, "targets": 8}
SIZES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 11)), min_size=1, max_size=60)


@hypothesis.given(SIZES, st.sampled_from([None, 0, 1]))
def test_every_example_lies_in_one_row_that_holds_it(sizes, seed):
    sizes = np.array(sizes)
    plan = plan_rows(sizes, LENGTHS, seed)
    rows = [plan[row].tolist() for row in range(len(plan))]
    order = [example for row in rows for example in row]
    assert sorted(order) == list(range(len(sizes))) and all(rows)
    needed = places_needed(sizes, LENGTHS)
    assert all((needed[row].sum(axis=0) <= [6, 8]).all() for row in rows)
    if seed is None:
        assert order == list(range(len(sizes)))


def test_by_best_fit_the_longest_first():
    """Targets of 7, 5, 2, 1 and 1 tokens fill two rows of 8."""
    sizes = np.array([[1, 1], [1, 5], [1, 7], [1, 2], [1, 1]])
    plan = plan_rows(sizes, LENGTHS, seed=3)
    assert sorted(sorted(sizes[plan[row], 1].tolist()) for row in range(len(plan))) == [[1, 2, 5], [1, 7]]


def test_an_empty_prompt_takes_a_place_and_a_long_example_a_row():
    assert places_needed(np.array([[0, 3], [9, 20]]), LENGTHS).tolist() == [[1, 3], [6, 8]]
    plan = plan_rows(np.array([[0, 1]] * 7), LENGTHS, seed=0)
    assert sorted(len(plan[row]) for row in range(len(plan))) == [1, 6]


def test_the_seed_determines_who_shares_a_row():
    sizes = np.random.default_rng(0).integers(1, 6, (50, 2))
    plans = [plan_rows(sizes, LENGTHS, seed) for seed in (0, 0, 1)]
    assert [plan.examples.tolist() for plan in plans[:2]] == [plans[0].examples.tolist()] * 2
    assert plans[0].examples.tolist() != plans[2].examples.tolist()


def test_the_share_of_padding_by_hand():
    assert padding(np.array([[3, 8], [9, 1]]), LENGTHS, rows=2) == pytest.approx(1 - 18 / 28)


def test_parts_are_packed_each_by_itself_and_quickly():
    sizes = np.random.default_rng(0).integers(1, 400, (3 * PART + 5, 2))
    lengths = {"inputs": 512, "targets": 512}
    start = time.process_time()
    plan = plan_rows(sizes, lengths, seed=0)
    # Six seconds are many times what it takes, and a small part of what a quadratic plan would.
    assert time.process_time() - start < 6
    assert padding(sizes, lengths, len(plan)) < 0.2 < padding(sizes, lengths, len(sizes)) / 2

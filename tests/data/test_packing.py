import hypothesis
import hypothesis.strategies as st
import numpy as np
from hypothesis.extra import numpy as hnp

from lmirl_jax.data import Packer
from lmirl_jax.rows import example_row, stack_rows

EOS = 1
LENGTHS = {"inputs": 4, "targets": 5}


def pack(examples, rows, **options):
    packer = Packer(rows, lengths=LENGTHS, eos_ids=(EOS,), **{"discount": 1.0} | options)
    places = [packer.add(np.array(i, np.int32), np.array(t, np.int32)) for i, t in examples]
    return packer.batch(), places


def test_by_first_fit():
    batch, places = pack([([7, EOS], [5, EOS]), ([8, 9, EOS], [6, EOS]), ([10, EOS], [7, 8, EOS])], rows=2)
    assert places == [(0, 0, 2), (1, 0, 2), (0, 2, 5)]
    np.testing.assert_array_equal(batch.prompt_tokens, [[7, 1, 10, 1], [8, 9, 1, 0]])
    np.testing.assert_array_equal(batch.prompt_segment_ids, [[1, 1, 2, 2], [1, 1, 1, 0]])
    np.testing.assert_array_equal(batch.positions, [[0, 1, 0, 1, 2], [0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.tokens, [[5, 1, 7, 8, 1], [6, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.segment_ids, [[1, 1, 2, 2, 2], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.discounts, [[1, 0, 1, 1, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.td_weights, [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


def test_what_has_no_room_is_left_out_and_what_is_too_long_is_trimmed():
    whole = ([7, 8, 9, 10, 11], [5, 6, 7, 8, 9, EOS])
    batch, places = pack([whole, ([7], [5, EOS])], rows=1)
    assert places == [(0, 0, 5), None]
    np.testing.assert_array_equal(batch.prompt_tokens, [[7, 8, 9, 10]])
    np.testing.assert_array_equal(batch.td_weights, [[1, 1, 1, 1, 0]])  # Truncated: no last reward.


def test_unpacked_each_has_a_row_of_its_own():
    short = ([7, EOS], [5, EOS])
    _, places = pack([short, short, short], rows=2, packed=False)
    assert places == [(0, 0, 2), (1, 0, 2), None]


TOKENS = hnp.arrays(np.int32, st.integers(1, 7), elements=st.integers(1, 9))


@hypothesis.given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8))
def test_each_place_holds_what_a_row_of_its_own_would(examples):
    packed, places = pack(examples, rows=len(examples), discount=0.5)
    rows = [example_row(i, t, lengths=LENGTHS, discount=0.5, eos_ids=(EOS,)) for i, t in examples]
    alone = stack_rows(rows)
    assert (packed.weights > 0).sum() == (alone.weights > 0).sum()
    for number, (row, start, stop) in enumerate(places):
        for name in ("tokens", "discounts", "td_weights", "positions"):
            own = getattr(alone, name)[number, : stop - start]
            np.testing.assert_array_equal(getattr(packed, name)[row, start:stop], own)
    np.testing.assert_array_equal(packed.weights > 0, packed.segment_ids > 0)

"""The shapes of bucketed batches, and which examples share one, from lengths alone."""

import itertools

import grain
import numpy as np
import pytest

from lmirl_jax.data.length_buckets import LengthBuckets, choose_shapes, smallest

ROOM = {"inputs": 64, "targets": 64}


def shapes_of(sizes, count, room=None, weights=None):
    weights = np.ones(len(sizes), np.int64) if weights is None else np.array(weights)
    return choose_shapes(np.array(sizes), weights, room or ROOM, count).tolist()


def places(sizes, shapes):
    """The places of a row for each example, in the smallest shape that holds it."""
    return sum(
        min(sum(shape) for shape in shapes if (np.array(size) <= shape).all()) for size in np.array(sizes)
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[64, 64]]),
        # It saves 3 * (128 - 56) places; 8+24 would save 2 * (128 - 32).
        (2, [[32, 24], [64, 64]]),
        # 32+24 is exchanged: beside 8+24, it takes 128 + 56 + 2 * 32 places, and 32+8 takes 128 + 40 + 2 * 32.
        (3, [[8, 24], [32, 8], [64, 64]]),
        (4, [[8, 8], [8, 24], [32, 8], [64, 64]]),
        # No further shape saves anything.
        (9, [[8, 8], [8, 24], [32, 8], [64, 64]]),
    ],
)
def test_shapes_by_hand(count, expected):
    assert shapes_of([(3, 3), (3, 20), (30, 3), (60, 60)], count) == expected


def test_examples_count_as_often_as_they_are_drawn():
    # 8+8 saves 100 * 112 places, 32+24 102 * 72, 8+24 101 * 96.
    assert shapes_of([(3, 3), (3, 20), (30, 3), (60, 60)], 2, weights=[100, 1, 1, 1])[0] == [8, 8]


@pytest.mark.parametrize("seed", range(5))
def test_two_shapes_are_the_best_two(seed):
    sizes = np.random.default_rng(seed).integers(1, 65, (40, 2))
    rounded = -(-sizes // 8) * 8
    most = rounded.max(axis=0)
    cuts = [np.unique(rounded[:, axis]) for axis in range(2)]
    best = min(places(sizes, [shape, most]) for shape in itertools.product(*cuts))
    chosen = shapes_of(sizes, 2)
    assert chosen[1] == most.tolist() and places(sizes, chosen) == best


def test_more_shapes_never_take_more_places():
    sizes = np.random.default_rng(0).integers(1, 65, (200, 2))
    taken = [places(sizes, shapes_of(sizes, count)) for count in range(1, 20)]
    assert taken == sorted(taken, reverse=True) and taken[-1] < 0.7 * taken[0]


def test_lengths_are_multiples_of_8_up_to_the_rows_own():
    room = {"inputs": 12, "targets": 20}
    assert shapes_of([(0, 0), (9, 9), (12, 20)], 3, room) == [[8, 8], [12, 16], [12, 20]]
    assert shapes_of([(3, 4)], 2, {"inputs": 4, "targets": 5}) == [[4, 5]]
    # The largest shape holds the longest texts, which may be shorter than the rows.
    assert shapes_of([(3, 3), (30, 41)], 1) == [[32, 48]]


def test_shapes_of_long_rows_are_made_of_few_lengths():
    sizes = np.random.default_rng(0).integers(1, 4097, (5000, 2))
    shapes = choose_shapes(sizes, np.ones(5000, np.int64), {"inputs": 4096, "targets": 4096}, 16)
    assert len(shapes) == 16 and shapes[-1].tolist() == [4096, 4096]
    held = shapes[smallest(shapes, sizes)]
    assert (held >= sizes).all()
    # Four lengths by four would leave a fifth of the places for uniform lengths as padding: 1 - 0.5 / 0.625.
    assert sizes.sum() / held.sum() > 0.78


def buckets_of(sizes, batch_size, seed, count=3):
    order = grain.MapDataset.source([(0, number) for number in range(len(sizes))]).repeat(1000)
    return LengthBuckets(order, [np.array(sizes)], [1.0], ROOM, count, batch_size, seed)


# Of the shapes 8+8, 16+16 and 32+32: the first, the second, the first, the third, ...
SIZES = [(n, n) for n in (5, 12, 6, 30, 7, 13, 14, 31)]


def test_batches_by_hand():
    """Of 0, 2, 4 in the smallest bucket, 4 is left and goes before 1, 5, 6 in the next one."""
    buckets = buckets_of(SIZES, 2, seed=0)
    assert buckets.shapes.tolist() == [[8, 8], [16, 16], [32, 32]] and buckets.window == 4
    for window in range(3):
        found = {
            (tuple(batch.examples[:, 1].tolist()), batch.lengths["inputs"], batch.lengths["targets"])
            for batch in (buckets[4 * window + number] for number in range(4))
        }
        assert found == {((0, 2), 8, 8), ((4, 1), 16, 16), ((5, 6), 16, 16), ((3, 7), 32, 32)}
    orders = [[buckets[4 * window + k].examples[0, 1] for k in range(4)] for window in range(6)]
    assert len(set(map(tuple, orders))) > 1


def test_the_largest_batch_is_the_first():
    """What does not fit into memory fails at the first step."""
    for seed in range(6):
        assert buckets_of(SIZES, 2, seed)[0].lengths == {"inputs": 32, "targets": 32}


def test_padding_by_hand():
    ours, whole = buckets_of(SIZES, 2, seed=0).padding(4)
    real = 2 * (5 + 12 + 6 + 30 + 7 + 13 + 14 + 31)
    assert ours == pytest.approx(1 - real / (2 * 16 + 4 * 32 + 2 * 64))
    assert whole == pytest.approx(1 - real / (8 * 128))


def test_without_shuffling_each_batch_is_cut_to_its_own_shape():
    buckets = buckets_of(SIZES, 2, seed=None)
    found = [(buckets[k].examples[:, 1].tolist(), buckets[k].lengths["inputs"]) for k in range(5)]
    assert found == [([0, 1], 16), ([2, 3], 32), ([4, 5], 16), ([6, 7], 32), ([0, 1], 16)]


def test_any_batch_is_planned_from_its_number():
    sizes = np.random.default_rng(0).integers(1, 65, (50, 2))
    in_turn, anyhow = (buckets_of(sizes, 4, seed=3) for _ in range(2))
    batches = [in_turn[number] for number in range(100)]
    for number in np.random.default_rng(1).permutation(100):
        examples, lengths = anyhow[int(number)]
        np.testing.assert_array_equal(examples, batches[number].examples)
        assert lengths == batches[number].lengths

import collections
import logging

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError

N = 13
LENGTHS = {"inputs": 4, "targets": 4}


@pytest.fixture
def build(make_task, single, tmp_path):
    """Builds a dataset of N examples, whose first input byte tells which it is."""

    def make(batch_size=4, **settings):
        texts = {"train": [(chr(97 + i), "xy") for i in range(N)]}
        task = settings.pop("task", None) or single(make_task(texts))
        settings = {"lengths": LENGTHS, "cache_dir": str(tmp_path)} | settings
        return data.TrainDataset(task, batch_size, **settings)

    return make


def order(iterator, batches):
    """Which examples the next batches hold: 0 for the first of the task."""
    return [int(token) - 100 for _ in range(batches) for token in next(iterator).prompt_tokens[:, 0]]


def test_every_example_once_an_epoch_in_another_order_each(build):
    found = order(build(batch_size=N).iterator(slice(0, N)), 3)
    epochs = [found[:N], found[N : 2 * N], found[2 * N :]]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_epoch_ends_inside_a_batch(build):
    found = order(build(batch_size=5).iterator(slice(0, 5)), 13)
    counts = collections.Counter(found)
    assert set(counts.values()) == {5}


def test_the_seed_determines_the_order(build):
    orders = [order(build(seed=seed).iterator(slice(0, 4)), 3) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_without_shuffling_the_order_is_the_tasks(build):
    assert order(build(shuffle=False).iterator(slice(0, 4)), 4) == [*range(N), 0, 1, 2]


def test_some_examples_are_drawn_by_their_own_seed(build):
    def drawn(examples_seed, seed=0, **settings):
        dataset = build(num_examples=5, examples_seed=examples_seed, seed=seed, batch_size=5, **settings)
        assert dataset.num_examples == 5
        return order(dataset.iterator(slice(0, 5)), 3)

    found = drawn(0)
    assert len(set(found)) == 5 and set(collections.Counter(found).values()) == {3}
    assert found[:5] != sorted(found[:5]) and drawn(0, shuffle=False) == 3 * sorted(set(found))
    assert set(drawn(0, seed=1)) == set(found) and drawn(0, seed=1) != found
    assert {frozenset(drawn(seed)) for seed in range(20)} != {frozenset(found)}
    assert set().union(*(drawn(seed) for seed in range(20))) == set(range(N))


def test_the_log_says_how_many_examples_are_drawn(build, caplog):
    with caplog.at_level(logging.INFO):
        build(num_examples=5, examples_seed=3)
    assert "train: 5 of 13 examples, drawn with seed 3" in caplog.text


def test_a_state_of_other_drawn_examples_is_refused(build):
    state = build(num_examples=5).iterator(slice(0, 4)).get_state()
    build(num_examples=5).iterator(slice(0, 4)).set_state(state)
    for other in ({}, {"num_examples": 6}, {"num_examples": 5, "examples_seed": 1}):
        with pytest.raises(UserError, match="TRAIN_NUM_EXAMPLES"):
            build(**other).iterator(slice(0, 4)).set_state(state)


def test_no_more_examples_are_drawn_than_there_are(build):
    assert sorted(order(build(num_examples=N, batch_size=N).iterator(slice(0, N)), 1)) == list(range(N))
    with pytest.raises(
        UserError, match=r"TRAIN_NUM_EXAMPLES=14: \w+ has 13 examples in split 'train'; set at most"
    ):
        build(num_examples=N + 1)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_global_batch_is_the_same_for_any_number_of_processes(build, processes):
    dataset = build(batch_size=8)
    whole = np.reshape(order(dataset.iterator(slice(0, 8)), 5), [5, 8])
    size = 8 // processes
    blocks = [dataset.iterator(slice(h * size, (h + 1) * size)) for h in range(processes)]
    parts = np.concatenate([np.reshape(order(block, 5), [5, size]) for block in blocks], axis=1)
    np.testing.assert_array_equal(whole, parts)


def test_rows_of_a_process_need_not_lie_together(build):
    """As on a pod: a ring of chips comes through a host several times."""
    dataset = build(batch_size=8)
    whole = np.reshape(order(dataset.iterator(slice(0, 8)), 5), [5, 8])
    for rows in (np.array([0, 3, 4]), np.array([1, 2, 5, 6, 7])):
        iterator = dataset.iterator(rows)
        np.testing.assert_array_equal(np.reshape(order(iterator, 3), [3, len(rows)]), whole[:3, rows])
        again = dataset.iterator(rows)
        again.set_state(iterator.get_state())
        np.testing.assert_array_equal(np.reshape(order(again, 2), [2, len(rows)]), whole[3:, rows])


def test_rows_must_be_some_in_order(build):
    for rows in (slice(2, 2), np.array([2, 1]), np.array([1, 1])):
        with pytest.raises(ValueError, match="one or more, in order"):
            build(batch_size=4).iterator(rows)


def test_resuming_equals_going_on(build):
    iterator = build().iterator(slice(0, 4))
    order(iterator, 5)
    state = iterator.get_state()
    assert state["next_index"] == 20  # What was taken, not what was prepared ahead.
    rest = order(iterator, 6)
    for _ in range(2):
        again = build().iterator(slice(0, 4))
        again.set_state(state)
        assert again.get_state() == state
        assert order(again, 6) == rest
    iterator.set_state(state)  # Going back with the same iterator.
    assert order(iterator, 6) == rest


def test_resuming_with_another_batch_size_and_more_processes(build):
    iterator = build(batch_size=6).iterator(slice(0, 6))
    order(iterator, 1)
    state = iterator.get_state()
    rest = order(iterator, 4)
    blocks = [build(batch_size=4).iterator(slice(2 * h, 2 * h + 2)) for h in range(2)]
    for block in blocks:
        block.set_state(state)
    parts = np.concatenate([np.reshape(order(block, 6), [6, 2]) for block in blocks], axis=1)
    assert parts.ravel().tolist() == rest
    assert {block.get_state()["next_index"] for block in blocks} == {6 + 24}


def test_resuming_far_along_takes_no_time(build):
    iterator = build().iterator(slice(0, 4))
    iterator.set_state(iterator.get_state() | {"next_index": 13 * 10**12})
    assert sorted(order(iterator, 3) + order(iterator, 1)[:1]) == list(range(N))


def test_a_state_of_other_data_is_refused(build, make_task, single):
    state = build().iterator(slice(0, 4)).get_state()
    other = single(make_task({"train": [("q", "xy")] * N}))
    for dataset in (build(seed=1), build(shuffle=False), build(task=other)):
        with pytest.raises(UserError, match="new MODEL_DIR, with INITIAL_CHECKPOINT_PATH"):
            dataset.iterator(slice(0, 4)).set_state(state)
    lengths = {"inputs": 2, "targets": 9}
    build(lengths=lengths, discount=0.5).iterator(slice(0, 4)).set_state(
        state
    )  # The same examples, cut otherwise.


def test_truncation_is_counted_and_logged(make_task, single, build, caplog):
    task = single(make_task({"train": [("a", "123"), ("b", "1234"), ("c", "12345"), ("defgh", "1")]}))
    with caplog.at_level(logging.WARNING):
        build(task=task)
    assert caplog.messages == [
        (
            "letters, train: 1 of 4 inputs are longer than 4 tokens, 2 of 4 targets are longer than 4 tokens and "
            "are truncated; for all of them set TASK_FEATURE_LENGTHS to {'inputs': 6, 'targets': 6}"
        )
    ]
    with pytest.raises(UserError, match=r"2 of 4 targets are longer than 4 tokens: .*or TRUNCATE = True"):
        build(task=task, truncate=False)
    caplog.clear()
    build(task=task, truncate=False, lengths={"inputs": 6, "targets": 6})
    assert not caplog.messages


def test_a_task_that_appends_no_eos_is_pointed_out(make_task, single, build, caplog):
    from lmirl_jax.data.seqio_library import seqio

    build(task=single(make_task({"train": [("a", "b")]}, preprocessors=[seqio.preprocessors.tokenize])))
    assert "1 of 1 targets have no EOS of their own" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be a whole number of 1 or more"),
        ({"lengths": {"inputs": 4}}, "lengths={'inputs': 4} must be {'inputs': 512, 'targets': 256}"),
        ({"lengths": {"inputs": 4, "targets": -1}}, "lengths={'inputs': 4, 'targets': -1} must be"),
        ({"discount": 1.5}, "discount=1.5 must be a number from 0 to 1"),
        ({"seed": -1}, "seed=-1 must be a whole number from 0"),
        ({"split": "dev"}, "letters has no split 'dev' to train on; it has train"),
    ],
)
def test_settings_out_of_range(build, settings, message):
    with pytest.raises(UserError, match=message):
        build(**settings)


def test_a_mixture_keeps_its_rates_and_resumes(make_task, build):
    parts = [
        make_task({"train": [(letters, "x") for letters in texts]}, name)
        for texts, name in (("abc", "one"), ("nopqrstuv", "two"))
    ]
    mixture = data.Task("both", tuple(parts), (1.0, 3.0))
    dataset = build(task=mixture, batch_size=12)
    iterator = dataset.iterator(slice(0, 12))
    for _ in range(2):
        counts = collections.Counter(order(iterator, 1))
        assert len(counts) == 12  # An epoch of each, as 1:3 is the ratio of their sizes.
    state = iterator.get_state()
    rest = order(iterator, 2)
    again = build(task=mixture, batch_size=12).iterator(slice(0, 12))
    again.set_state(state)
    assert order(again, 2) == rest


def test_batches_of_one_example(build):
    iterator = build(batch_size=1).iterator(slice(0, 1))
    assert sorted(order(iterator, N)) == list(range(N))

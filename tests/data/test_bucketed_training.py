"""`TrainDataset` with `buckets`: rows hold what they held, batches have few shapes, and the order keeps its promises."""

import collections
import dataclasses

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.types import Batch, UserError
from tests.data.chat_templates import say

LENGTHS = {"inputs": 32, "targets": 40}
# Prompts and answers of unlike lengths, some over length; the first letter of a prompt tells which example it is.
TEXTS = [(chr(97 + i) * (1 + i * 7 % 33), "x" * (i * 11 % 43)) for i in range(23)]
ARRAYS = [field.name for field in dataclasses.fields(Batch)]


@pytest.fixture
def build(make_task, single, tmp_path):
    def make(batch_size=2, **settings):
        task = settings.pop("task", None) or single(make_task({"train": TEXTS}))
        settings = {"lengths": LENGTHS, "cache_dir": str(tmp_path), "buckets": 4} | settings
        return data.TrainDataset(task, batch_size, **settings)

    return make


def firsts(batch):
    """Which examples a batch holds: 0 for the first of the task."""
    return [int(token) - 100 for token in batch.prompt_tokens[:, 0]]


def shape(batch):
    return batch.prompt_tokens.shape[1], batch.tokens.shape[1]


def all_firsts(batches):
    return [first for batch in batches for first in firsts(batch)]


def taken(dataset, batches, rows=None, state=None):
    iterator = dataset.iterator(rows or slice(0, dataset.batch_size))
    if state is not None:
        iterator.set_state(state)
    found = [next(iterator) for _ in range(batches)]
    state = iterator.get_state()
    iterator.close()
    return found, state


def assert_equal(one, other):
    for name in ARRAYS:
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def padded(batch, lengths=LENGTHS):
    """A batch in rows of the full length."""

    def pad(name):
        array = getattr(batch, name)
        if array is None:
            return None
        length = lengths["inputs" if name.startswith("prompt") else "targets"]
        return np.pad(array, ((0, 0), (0, length - array.shape[1])))

    return Batch(**{name: pad(name) for name in ARRAYS})


def test_a_batch_of_examples_in_few_shapes(build):
    dataset = build(buckets=4)
    batches, _ = taken(dataset, 60)
    shapes = set(map(shape, batches))
    assert 1 < len(shapes) <= 4 and dataset.buckets == 4 and not dataset.packed
    for inputs, targets in shapes:
        assert (inputs % 8 == 0 and inputs <= 32) and (targets % 8 == 0 and targets <= 40)
    assert sum(2 * sum(shape(batch)) for batch in batches) < 0.8 * 60 * 2 * 72


def test_each_row_is_that_of_the_example_alone(build):
    """Also of those that the lengths truncate."""
    alone = {firsts(batch)[0]: batch for batch in taken(build(1, buckets=1), 23)[0]}
    batches, _ = taken(build(1), 23 * 2)
    assert len({firsts(batch)[0] for batch in batches}) == 23
    for batch in batches:
        assert_equal(padded(batch), alone[firsts(batch)[0]])


def test_each_window_has_the_examples_that_it_has_without_buckets(build):
    ours, plain = (taken(build(buckets=k), 11 * 23)[0] for k in (4, 1))
    assert all_firsts(ours) != all_firsts(plain)
    for start in range(0, len(ours), 11):
        window = [sorted(all_firsts(found[start : start + 11])) for found in (ours, plain)]
        assert window[0] == window[1]
    # 23 windows of 22 examples are 22 epochs.
    assert set(collections.Counter(all_firsts(ours)).values()) == {22}


def test_the_seed_determines_the_order(build):
    orders = [[firsts(batch) for batch in taken(build(seed=seed), 30)[0]] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_without_shuffling_batches_are_those_of_one_shape_but_short(build):
    ours, plain = (taken(build(buckets=k, shuffle=False), 23)[0] for k in (4, 1))
    for one, other in zip(ours, plain, strict=True):
        assert_equal(padded(one), other)
    assert 1 < len(set(map(shape, ours))) <= 4


def test_a_resume_anywhere_goes_on_with_the_next_batch(build):
    whole, _ = taken(build(), 30)
    for position in range(30):
        state = taken(build(), position)[1] if position in (1, 12) else None
        state = state or taken(build(), 0)[1] | {"next_index": 2 * position}
        assert state["next_index"] == 2 * position
        (batch,), _ = taken(build(), 1, state=state)
        assert_equal(batch, whole[position])


def test_resuming_far_along_takes_no_time(build):
    # Here an epoch of 23 examples and a window of 22 begin.
    state = taken(build(), 0)[1] | {"next_index": 22 * 23 * 10**11}
    found = all_firsts(taken(build(), 11, state=state)[0])
    assert len(set(found)) == len(found) == 22


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_read_blocks_of_the_same_batch_in_one_shape(build, processes):
    whole, _ = taken(build(4), 20)
    size = 4 // processes
    blocks = [taken(build(4), 20, rows=slice(k * size, (k + 1) * size)) for k in range(processes)]
    assert len({state["next_index"] for _, state in blocks}) == 1
    for number, batch in enumerate(whole):
        parts = [found[number] for found, _ in blocks]
        joined = {
            name: None
            if getattr(batch, name) is None
            else np.concatenate([getattr(part, name) for part in parts])
            for name in ARRAYS
        }
        assert_equal(Batch(**joined), batch)


def test_a_state_of_other_buckets_is_refused(build):
    _, state = taken(build(), 1)
    for other in (
        {"buckets": 1},
        {"buckets": 3},
        {"batch_size": 4},
        {"lengths": {"inputs": 32, "targets": 48}},
        {"turns": "last"},
        {"seed": 1},
        {"shuffle": False},
    ):
        with pytest.raises(UserError, match=r"BUCKETS, .*BATCH_SIZE"):
            taken(build(**other), 1, state=state)


def test_packed_rows_have_no_buckets(build):
    with pytest.raises(UserError, match=r"PACK=True and BUCKETS=4: .*; set PACK=False or BUCKETS=1"):
        build(pack=True)


def test_drawn_examples_are_bucketed(build):
    settings = {"num_examples": 9, "examples_seed": 2}
    expected = {firsts(batch)[0] for batch in taken(build(1, buckets=1, **settings), 9)[0]}
    found = collections.Counter(all_firsts(taken(build(3, **settings), 9)[0]))
    assert found == dict.fromkeys(expected, 3)


def test_a_mixture_takes_examples_by_its_rates(build, make_task):
    """Its shapes are for examples as they are drawn: a rare task's own shape does not pay."""
    short = make_task({"train": [("a", "xyz")] * 40}, name="short")
    long = make_task({"train": [("b" * 11, "x" * 15)] * 40}, name="long")
    dataset = build(2, task=Task("both", (short, long), (3.0, 1.0)))
    counts = collections.Counter()
    for batch in taken(dataset, 120)[0]:
        counts.update(firsts(batch))
        assert shape(batch) == ((8, 8) if set(firsts(batch)) == {0} else (16, 16))
    assert counts[0] / counts.total() == pytest.approx(0.75, abs=0.02)


def test_weights_rewards_and_turns_stay_with_their_example(build, write_jsonl, hf_chat):
    """As in full rows, for all turns and for the last; a conversation's length is that of the turns that are used."""
    rows = [
        {"messages": say(*("q" * (1 + k % 5), "a" * (k % 7), "c" * 3, "d" * (1 + k % 4))), "weight": 1.0 + k}
        for k in range(8)
    ]
    rows += [{"inputs": "a" * k, "targets": "b" * k, "reward": float(k)} for k in range(1, 12)]
    task = data.get_task(data=write_jsonl(rows), vocabulary_path=str(hf_chat["qwen"]))
    lengths = {"inputs": 150, "targets": 120}
    for turns in ("all", "last"):
        settings = {"task": task, "lengths": lengths, "turns": turns, "discount": 0.5}
        alone = {
            batch.prompt_tokens.tobytes() + batch.tokens.tobytes(): batch
            for batch in taken(build(1, buckets=1, **settings), 19)[0]
        }
        batches, _ = taken(build(1, **settings), 19)
        assert len(set(map(shape, batches))) > 1 and max(shape(b)[1] for b in batches) <= 120
        seen = set()
        for batch in batches:
            whole = padded(batch, lengths)
            key = whole.prompt_tokens.tobytes() + whole.tokens.tobytes()
            seen.add(key)
            assert_equal(whole, alone[key])
        assert seen == set(alone)


def test_the_log_says_what_buckets_save(build, caplog):
    with caplog.at_level("INFO"):
        dataset = build()
    batches, _ = taken(dataset, 11)
    # Every byte is a token, and each text has an EOS, unless it is cut.
    real = sum(int((b.segment_ids > 0).sum() + (b.prompt_segment_ids > 0).sum()) for b in batches)
    ours, whole = (100 * (1 - real / n) for n in (sum(2 * sum(shape(b)) for b in batches), 11 * 2 * 72))
    words = f"in the first 11, {ours:.0f}% is padding, in rows of 32+40 it were {whole:.0f}%"
    assert words in caplog.text and " shapes: " in caplog.text

"""`TrainDataset` with `pack=True`: what a row holds at its seams, and that the order keeps its promises."""

import collections

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.types import UserError
from tests.data.chat_templates import say

LENGTHS = {"inputs": 12, "targets": 16}
# Prompts and answers of unlike lengths; the first letter of a prompt tells which example it is.
TEXTS = [(chr(97 + i) * (1 + i % 4), "xyzuv"[: 1 + i * 2 % 5]) for i in range(23)]


@pytest.fixture
def build(make_task, single, tmp_path):
    def make(batch_size=2, **settings):
        task = settings.pop("task", None) or single(make_task({"train": TEXTS}))
        settings = {"lengths": LENGTHS, "cache_dir": str(tmp_path), "pack": True} | settings
        return data.TrainDataset(task, batch_size, **settings)

    return make


@pytest.fixture
def of_rows(write_jsonl, tmp_path, build):
    """The one row into which the examples of a file are packed, in their order."""

    def make(rows, lengths=LENGTHS, vocabulary_path=None, **settings):
        task = data.get_task(data=write_jsonl(rows), vocabulary_path=vocabulary_path)
        dataset = build(1, task=task, lengths=lengths, shuffle=False, **settings)
        iterator = dataset.iterator(slice(0, 1))
        batch = next(iterator)
        iterator.close()
        assert batch.segment_ids.max() == len(rows)
        return batch

    return make


def firsts(batch):
    """Which examples a batch holds: 0 for the first of the task."""
    found = []
    for tokens, segments in zip(batch.prompt_tokens, batch.prompt_segment_ids, strict=True):
        _, begins = np.unique(segments[segments > 0], return_index=True)
        found += [int(token) - 100 for token in tokens[begins]]
    return found


def taken(dataset, batches, rows=None, state=None):
    iterator = dataset.iterator(rows or slice(0, dataset.batch_size))
    if state is not None:
        iterator.set_state(state)
    found = [next(iterator) for _ in range(batches)]
    state = iterator.get_state()
    iterator.close()
    return found, state


def rows_of_an_epoch(dataset):
    seen, rows = [], 0
    iterator = dataset.iterator(slice(0, dataset.batch_size))
    while len(seen) < len(TEXTS):
        seen += firsts(next(iterator))
        rows += dataset.batch_size
    iterator.close()
    return seen, rows


def test_weights_and_rewards_at_the_seams_by_hand(of_rows):
    batch = of_rows(
        [
            {"inputs": "a", "targets": "xy", "weight": 2.0, "reward": 5.0},
            {"inputs": "bcdef", "targets": "z", "rewards": [1.0, -1.0]},
            {"inputs": "", "targets": "u"},
        ],
        lengths={"inputs": 10, "targets": 8},
        discount=0.5,
    )
    assert batch.tokens[0].tolist() == [123, 124, 1, 125, 1, 120, 1, 0]
    assert batch.segment_ids[0].tolist() == [1, 1, 1, 2, 2, 3, 3, 0]
    assert batch.positions[0].tolist() == [0, 1, 2, 0, 1, 0, 1, 0]
    assert batch.weights[0].tolist() == [2, 2, 2, 1, 1, 1, 1, 0]
    assert batch.discounts[0].tolist() == [0.5, 0.5, 0, 0.5, 0, 0.5, 0, 0]
    assert batch.td_weights[0].tolist() == [1, 1, 1, 1, 1, 1, 1, 0]
    assert batch.rewards[0].tolist() == [0, 0, 5, 1, -1, 0, 0, 0]
    assert batch.prompt_tokens[0].tolist() == [100, 1, 101, 102, 103, 104, 105, 1, 1, 0]
    assert batch.prompt_segment_ids[0].tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 3, 0]


def test_an_answer_without_its_end_is_truncated_beside_its_neighbours(build, make_task, single):
    from lmirl_jax.data.seqio_library import seqio

    texts = {"train": [("a", "xy"), ("b", "z")]}
    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)
    features = dict.fromkeys(("inputs", "targets"), feature)
    task = make_task(texts, preprocessors=[seqio.preprocessors.tokenize], output_features=features)
    ((batch,), _) = taken(build(1, task=single(task), shuffle=False), 1)
    assert batch.tokens[0, :4].tolist() == [123, 124, 125, 0]
    assert batch.discounts[0, :4].tolist() == [1, 0, 0, 0]
    assert batch.td_weights[0, :4].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("episodes", ["turns", "conversation"])
def test_a_conversation_is_marked_behind_a_neighbour(of_rows, hf_chat, episodes):
    folder = str(hf_chat["qwen"])
    rows = [{"inputs": "a", "targets": "b"}, {"messages": say("c", "d", "e", "f"), "weight": 3.0}]
    settings = {"vocabulary_path": folder, "lengths": {"inputs": 200, "targets": 200}, "discount": 0.5}
    packed = of_rows(rows, episodes=episodes, **settings)
    alone = [of_rows([row], episodes=episodes, **settings) for row in rows]
    begin = 0
    for segment, own in enumerate(alone, start=1):
        size = int((own.segment_ids > 0).sum())
        for name in ("tokens", "positions", "weights", "discounts", "td_weights"):
            place = getattr(packed, name)[0, begin : begin + size]
            np.testing.assert_array_equal(place, getattr(own, name)[0, :size], err_msg=name)
        assert (packed.segment_ids[0, begin : begin + size] == segment).all()
        begin += size
    assert not packed.segment_ids[0, begin:].any()
    # What the user says in between has no weight, and costs no discount where the conversation is one episode.
    second = packed.segment_ids[0] == 2
    between = second & (packed.weights[0] == 0)
    assert between.any() and not packed.td_weights[0][between].any()
    assert set(packed.discounts[0][between]) == {0.0 if episodes == "turns" else 0.5}
    assert set(packed.weights[0][second]) == {0.0, 3.0}


def test_every_example_once_an_epoch_in_fewer_rows(build):
    dataset = build(1)
    seen, rows = rows_of_an_epoch(dataset)
    assert sorted(seen) == list(range(len(TEXTS))) and rows < len(TEXTS) / 2
    assert dataset.packed and dataset.num_examples == len(TEXTS)
    (batches, _) = taken(dataset, 2 * rows)
    epochs = [[firsts(batch) for batch in batches[start : start + rows]] for start in (0, rows)]
    # The same examples share a row, and the rows come in another order.
    assert sorted(map(sorted, epochs[0])) == sorted(map(sorted, epochs[1])) and epochs[0] != epochs[1]


def test_without_shuffling_the_order_is_the_tasks(build):
    assert rows_of_an_epoch(build(1, shuffle=False))[0] == list(range(len(TEXTS)))


def test_a_resume_in_the_middle_goes_on_with_the_next_rows(build):
    whole, _ = taken(build(), 9)
    first, state = taken(build(), 4)
    rest, _ = taken(build(), 5, state=state)
    assert state["next_index"] == 8
    assert [firsts(batch) for batch in whole] == [firsts(batch) for batch in (*first, *rest)]
    # The position counts rows, whatever the batch.
    one_by_one, _ = taken(build(1), 2, state=state)
    assert [first for batch in one_by_one for first in firsts(batch)] == firsts(whole[4])


def test_two_processes_read_the_halves_of_every_batch(build):
    whole, _ = taken(build(4), 5)
    halves = [taken(build(4), 5, rows=slice(start, start + 2)) for start in (0, 2)]
    assert halves[0][1] == halves[1][1]
    for batch, *parts in zip(whole, *(found for found, _ in halves), strict=True):
        for name in ("tokens", "segment_ids", "prompt_tokens"):
            np.testing.assert_array_equal(
                getattr(batch, name), np.concatenate([getattr(part, name) for part in parts])
            )


def test_a_state_of_another_packing_is_refused(build):
    _, state = taken(build(), 1)
    for other in (
        {"pack": False},
        {"lengths": {"inputs": 12, "targets": 20}},
        {"seed": 1},
        {"turns": "last"},
    ):
        with pytest.raises(UserError, match="PACK"):
            taken(build(**other), 1, state=state)
    taken(build(batch_size=4), 1, state=state)


def test_drawn_examples_are_packed(build):
    dataset = build(1, num_examples=9, examples_seed=2)
    drawn, _ = taken(build(1, num_examples=9, examples_seed=2, pack=False, shuffle=False), 9)
    expected = sorted(first for batch in drawn for first in firsts(batch))
    seen = []
    for batch in taken(dataset, 9)[0]:
        seen += firsts(batch)
    assert dataset.num_examples == 9 and sorted(set(seen)) == expected


def test_a_mixture_takes_examples_by_its_rates(build, make_task):
    """Four short examples fill a row of the first task, and one a row of the second: still half of all are of each."""
    short = make_task({"train": [("a", "xyz")] * 40}, name="short")
    long = make_task({"train": [("b" * 11, "x" * 15)] * 40}, name="long")
    dataset = build(1, task=Task("both", (short, long), (1.0, 1.0)))
    counts = collections.Counter()
    for batch in taken(dataset, 200)[0]:
        counts.update(firsts(batch))
    assert counts[0] / counts.total() == pytest.approx(0.5, abs=0.02)


def test_the_log_says_what_packing_saves(build, caplog):
    _, rows = rows_of_an_epoch(build(1))
    with caplog.at_level("INFO"):
        build()
    places = rows * 28
    # Every byte is a token, and each text has an EOS.
    padding = 1 - sum(len(prompt) + len(answer) + 2 for prompt, answer in TEXTS) / places
    assert f"23 examples in {rows} rows, of which {100 * padding:.0f}% is padding" in caplog.text

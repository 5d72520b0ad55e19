"""Rewards of rows and of features become those of a batch; what cannot be one is refused in one line."""

import json

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from lmirl_jax import data
from lmirl_jax.data import Packer
from lmirl_jax.data.given_rewards import token_rewards
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.types import UserError

GOOD = {"inputs": "one", "targets": "12"}  # Three tokens with EOS.
LENGTHS = {"inputs": 8, "targets": 5}


@pytest.fixture
def cache(tmp_path):
    return {"cache_dir": str(tmp_path / "cache")}


def train(path, cache, **settings):
    arguments = {"batch_size": 3, "lengths": LENGTHS, "shuffle": False} | settings
    return data.TrainDataset(data.get_task(data=path), **arguments, **cache)


def first_batch(dataset):
    return next(dataset.iterator(slice(0, dataset.batch_size)))


def test_a_reward_is_paid_at_the_last_token_and_rewards_at_each(write_jsonl, cache, caplog):
    rows = [GOOD | {"reward": 2, "weight": 0.5}, GOOD | {"rewards": [0.5, -1, 3]}, GOOD]
    path = write_jsonl(rows)
    warn_once.cache_clear()  # Another test may have been told the same.
    dataset = train(path, cache)
    batch = first_batch(dataset)
    expected = [[0, 0, 2, 0, 0], [0.5, -1, 3, 0, 0], [0] * 5]
    assert dataset.has_rewards and batch.rewards.dtype == np.float32
    assert batch.rewards.tolist() == expected
    assert batch.weights[:, 0].tolist() == [0.5, 1, 1]
    held_out = data.EvalDataset(data.get_task(data=path), LENGTHS, "train", **cache)
    ((found, examples),) = held_out.batches(4)
    assert held_out.has_rewards and found.rewards.tolist() == [*expected, [0] * 5]
    assert examples[0]["reward"] == 2.0 and examples[1]["rewards"] == [0.5, -1.0, 3.0]
    told = "examples, train: 2 of 3 examples have a reward; that of the others is 0"
    assert caplog.messages.count(told) == 1
    assert "not read" not in caplog.text


def test_each_process_has_the_rewards_of_its_rows(write_jsonl, cache):
    path = write_jsonl([GOOD | {"targets": str(n), "reward": n} for n in range(8)])
    dataset = train(path, cache, batch_size=4, shuffle=True)
    whole = first_batch(dataset)
    parts = [next(dataset.iterator(slice(start, start + 2))) for start in (0, 2)]
    np.testing.assert_array_equal(np.concatenate([part.rewards for part in parts]), whole.rewards)
    np.testing.assert_array_equal(whole.rewards[:, 1], whole.tokens[:, 0] - 3 - ord("0"))


def test_data_without_rewards_have_none_and_are_what_they_were(write_jsonl, cache):
    plain = train(write_jsonl([GOOD, GOOD]), cache)
    assert not plain.has_rewards and first_batch(plain).rewards is None
    held_out = data.EvalDataset(plain.task, LENGTHS, "train", **cache)
    assert not held_out.has_rewards and next(held_out.batches(2))[0].rewards is None
    others = [
        [GOOD | {"reward": 1}, GOOD],
        [GOOD, GOOD | {"reward": 1}],
        [GOOD | {"reward": 2}, GOOD],
        [GOOD | {"rewards": [1, 0, 0]}, GOOD],
    ]
    prints = [train(write_jsonl(rows), cache).fingerprint for rows in others]
    assert len({plain.fingerprint, *prints}) == 5
    same = train(write_jsonl([GOOD | {"rewards": [0, 0, 1]}, GOOD]), cache)
    assert same.fingerprint == prints[0]  # What a batch holds is the same.


BAD = [
    ({"reward": 1, "rewards": [1, 1, 1]}, "both 'reward' and 'rewards'; keep 'reward', one number for"),
    ({"rewards": [1, 2]}, "rewards has 2 numbers and the answer has 3 tokens with the one that ends it; write one"),
    ({"rewards": [1, 2, 3, 4]}, "rewards has 4 numbers and the answer has 3 tokens"),
    ({"rewards": []}, "rewards has 0 numbers and the answer has 3 tokens"),
    ({"rewards": 1.0}, "rewards is float, not a list; write a list with one number for each token"),
    ({"rewards": [1, True, 1]}, "number 2 of rewards is bool, not a number; write a finite number"),
    ({"rewards": [1, 1, None]}, "number 3 of rewards is NoneType, not a number"),
    ({"rewards": [1, 1, float("nan")]}, "number 3 of rewards is nan; write a finite number that float32 holds"),
    ({"reward": float("inf")}, "reward is inf; write a finite number that float32 holds"),
    ({"reward": 1e39}, r"reward is 1e\+39; write a finite number"),
    ({"reward": True}, "reward is bool, not a number"),
    ({"reward": "1"}, "reward is str, not a number"),
    ({"reward": [1, 1, 1]}, "reward is a list, not a number; name a list with one number for each token 'rewards'"),
    ({"Rewards": [1, 1, 1]}, "the key 'Rewards' is not read: write 'rewards'"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_is_no_reward_is_named_with_its_line(write_jsonl, tmp_path, cache, given, message):
    with pytest.raises(UserError, match=rf"examples\.jsonl, line 2: {message}") as raised:
        train(write_jsonl([GOOD, GOOD | given]), cache)
    assert "\n" not in str(raised.value)
    assert not list((tmp_path / "cache").iterdir())


def test_parquet_gives_rewards_too(tmp_path, cache):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([GOOD | {"rewards": [1.0, 2.0, 3.0]}, GOOD]), path)
    dataset = train(str(path), cache, batch_size=2)
    assert first_batch(dataset).rewards.tolist() == [[1, 2, 3, 0, 0], [0] * 5]
    parquet.write_table(pyarrow.Table.from_pylist([GOOD | {"reward": "x"}]), path)
    with pytest.raises(UserError, match=r"rows\.parquet, row 1: reward is str, not a number"):
        train(str(path), cache)


def test_a_vocabulary_of_pieces_says_how_many_tokens_there_are(write_jsonl, spiece_eos_2, cache):
    row = {"inputs": "1+2!", "targets": "1+2! is 5!"}
    tokens = len(data.vocabulary(str(spiece_eos_2)).encode(row["targets"])) + 1
    task = data.get_task(data=write_jsonl([row | {"rewards": [1]}]), vocabulary_path=str(spiece_eos_2))
    with pytest.raises(UserError, match=f"rewards has 1 numbers and the answer has {tokens} tokens"):
        data.TrainDataset(task, 1, LENGTHS, **cache)


def test_a_truncated_answer_has_lost_its_reward(write_jsonl, cache, caplog):
    warn_once.cache_clear()
    rows = [
        GOOD | {"targets": "1234567", "reward": 5},
        GOOD | {"targets": "12345", "rewards": [1, 2, 3, 4, 5, 6]},
    ]
    batch = first_batch(train(write_jsonl(rows), cache, batch_size=2))
    assert batch.rewards.tolist() == [[0] * 5, [1, 2, 3, 4, 5]]
    assert batch.td_weights.tolist() == [[1, 1, 1, 1, 0]] * 2  # The last one that is left has no effect.
    (line,) = [line for line in caplog.messages if "truncated" in line]
    assert (
        "and are truncated, so that rewards at the end of these targets have no effect; for all of them"
        in line
    )
    caplog.clear()
    train(write_jsonl([{key: row[key] for key in GOOD} for row in rows]), cache)
    assert "truncated" in caplog.text and "rewards" not in caplog.text


def giving(key, values):
    """A preprocessor that gives each example its reward."""
    table = tf.constant(values)
    return lambda dataset: dataset.enumerate().map(lambda i, x: {**x, key: tf.gather(table, i)})


@pytest.mark.parametrize(
    ("key", "values", "expected"),
    [
        ("reward", [1.5, -2.0], [[0, 0, 1.5], [0, -2, 0]]),
        ("reward", [1, 2], [[0, 0, 1], [0, 2, 0]]),
        ("rewards", [[1.0, 2.0, 3.0]] * 2, "task letters, train, example 1: rewards has 3 numbers and the answer has 2"),
        ("reward", [[1.0], [2.0]], "task letters, train, example 0: reward is a list, not a number"),
        ("reward", [float("nan"), 1.0], "task letters, train, example 0: reward is nan"),
        ("reward", ["a", "b"], "task letters, train, example 0: reward is str"),
    ],
)  # fmt: skip
def test_a_feature_of_a_seqio_task_gives_rewards(make_task, single, cache, key, values, expected):
    preprocessors = [
        giving(key, values),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ]
    task = single(make_task({"train": [("a", "bc"), ("d", "e")]}, preprocessors=preprocessors))
    lengths = {"inputs": 4, "targets": 3}
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            data.TrainDataset(task, 2, lengths, shuffle=False, **cache)
        return
    dataset = data.TrainDataset(task, 2, lengths, shuffle=False, **cache)
    assert dataset.has_rewards and first_batch(dataset).rewards.tolist() == expected


def test_a_mixture_has_rewards_where_one_of_its_tasks_has(make_task, cache):
    preprocessors = [
        giving("reward", [1.5]),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ]
    parts = (
        make_task({"train": [("a", "b")]}, "plain"),
        make_task({"train": [("c", "d")]}, "rewarded", preprocessors=preprocessors),
    )
    dataset = data.TrainDataset(data.Task("both", parts, (1.0, 1.0)), 2, LENGTHS, **cache)
    rewards = first_batch(dataset).rewards[:, :2].tolist()
    assert sorted(rewards) == [[0, 0], [0, 1.5]]


def test_rewards_are_packed_like_the_tokens():
    packer = Packer(2, lengths={"inputs": 4, "targets": 5}, discount=1.0, eos_ids=(1,), with_rewards=True)
    for targets, rewards in (([5, 1], [0.5, 1.0]), ([6, 7, 8, 9], None), ([7, 8, 1], [1.0, 2.0, 3.0])):
        given = None if rewards is None else np.array(rewards, np.float32)
        packer.add(np.array([7], np.int32), np.array(targets, np.int32), rewards=given)
    batch = packer.batch()
    np.testing.assert_array_equal(batch.tokens, [[5, 1, 7, 8, 1], [6, 7, 8, 9, 0]])
    np.testing.assert_array_equal(batch.rewards, [[0.5, 1, 1, 2, 3], [0] * 5])
    packer = Packer(1, lengths=LENGTHS, discount=1.0, eos_ids=(1,))
    packer.add(np.array([7], np.int32), np.array([5, 1], np.int32), weight=0.5)
    assert packer.batch().rewards is None and packer.batch().weights.tolist() == [[0.5, 0.5, 0, 0, 0]]


def test_by_hand():
    assert token_rewards({}, 3) is None
    assert token_rewards({"reward": 2}, 3).tolist() == [0, 0, 2]
    assert token_rewards({"reward": 2}, 0).tolist() == []
    assert token_rewards({"rewards": [1, 2]}, 2).tolist() == [1, 2]


def test_prompts_and_pairs_pass_over_rewards(write_jsonl, single, make_task, caplog):
    path = write_jsonl([GOOD | {"reward": 1}, json.dumps(GOOD | {"rewards": [1, 2, 3]})])
    task = single(make_task({"train": [("a", "b")]}))
    assert len(data.PairFile(path, task, LENGTHS)) == len(data.PromptFile(path, task, LENGTHS)) == 2
    assert "not read" not in caplog.text

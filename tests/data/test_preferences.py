"""Rejected answers in files: the rows of a batch, the forms in which people have them, and what cannot be one in one line."""

import dataclasses
import json

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.rows import answers_of, prompts_of
from lmirl_jax.types import UserError
from tests.data.chat_templates import say

LENGTHS = {"inputs": 48, "targets": 12}
PAIR = {"prompt": "one", "chosen": "12", "rejected": "345"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    warn_once.cache_clear()


@pytest.fixture
def chat_task(hf_chat, write_jsonl):
    return lambda row: data.get_task(data=write_jsonl([row]), vocabulary_path=str(hf_chat["qwen"]))


def preferences(task, **settings):
    settings = {"batch_size": 2, "lengths": LENGTHS, "shuffle": False, "preferences": True} | settings
    return data.TrainDataset(task, **settings)


def first_batch(dataset, rows=None):
    return next(dataset.iterator(rows or slice(0, dataset.batch_size)))


def texts(task, batch):
    """The prompt and the answer of each row."""
    prompts, answers = prompts_of(batch), answers_of(batch)
    return [
        (task.decode_inputs(prompt[:n]), task.decode(answer[:m]))
        for prompt, n, answer, m in zip(
            prompts.tokens, prompts.lengths, answers.tokens, answers.lengths, strict=True
        )
    ]


def test_the_chosen_and_the_rejected_answer_are_neighbouring_rows(write_jsonl):
    task = data.get_task(data=write_jsonl([PAIR, PAIR | {"prompt": "two", "weight": 0.5, "rejected": ""}]))
    dataset = preferences(task, batch_size=4)
    assert (dataset.rows_together, dataset.has_preferences, dataset.num_examples) == (2, True, 2)
    batch = first_batch(dataset)
    assert texts(task, batch) == [("one", "12"), ("one", "345"), ("two", "12"), ("two", "")]
    assert batch.weights.sum(axis=-1).tolist() == [3, 4, 1.5, 0.5]  # EOS included.
    assert answers_of(batch).terminal.all()


def test_pairs_are_shuffled_as_one_and_resume_anywhere(write_jsonl):
    rows = [{"prompt": str(n), "chosen": f"{n}+", "rejected": f"{n}-"} for n in range(10)]
    task = data.get_task(data=write_jsonl(rows))
    dataset = preferences(task, batch_size=4, shuffle=True)
    iterator = dataset.iterator(slice(0, 4))
    found = [texts(task, next(iterator)) for _ in range(5)]
    pairs = [pair for batch in found for pair in zip(batch[::2], batch[1::2], strict=True)]
    assert all(c == (n, f"{n}+") and r == (n, f"{n}-") for (c, r) in pairs for n in [c[0]])
    assert sorted(c[0] for c, _ in pairs) == sorted(str(n) for n in range(10))
    again = preferences(task, batch_size=4, shuffle=True).iterator(slice(0, 4))
    again.set_state({**iterator.get_state(), "next_index": 8})
    assert texts(task, next(again)) == found[2]
    # The processes of a run have whole pairs.
    halves = [texts(task, first_batch(dataset, slice(start, start + 2))) for start in (0, 2)]
    assert halves[0] + halves[1] == found[0]


def test_validation_has_the_same_rows(write_jsonl):
    task = data.get_task(data=write_jsonl([PAIR, PAIR | {"prompt": "two"}, PAIR | {"prompt": "six"}]))
    held_out = data.EvalDataset(task, LENGTHS, "train", preferences=True)
    batches = [(texts(task, batch), len(examples)) for batch, examples in held_out.batches(4)]
    assert batches[0] == ([("one", "12"), ("one", "345"), ("two", "12"), ("two", "345")], 2)
    assert batches[1] == ([("six", "12"), ("six", "345"), ("", ""), ("", "")], 1)


def test_a_rejected_prefix_has_no_end(write_jsonl):
    """Its last token is learnt as one of a truncated answer: what would follow is not known."""
    task = data.get_task(data=write_jsonl([PAIR]))
    batch = first_batch(preferences(task, rejected_ends=False))
    assert texts(task, batch) == [("one", "12"), ("one", "345")]
    assert batch.weights.sum(axis=-1).tolist() == [3, 3]
    assert answers_of(batch).terminal.tolist() == [True, False]
    held_out = data.EvalDataset(task, LENGTHS, "train", preferences=True, rejected_ends=False)
    ((rows, _),) = held_out.batches(2)
    assert rows.weights.tolist() == batch.weights.tolist()
    assert preferences(task).fingerprint != preferences(task, rejected_ends=False).fingerprint


def test_without_preferences_the_chosen_answers_are_demonstrations(write_jsonl, caplog):
    task = data.get_task(data=write_jsonl([PAIR, PAIR | {"prompt": "two"}]))
    batch = first_batch(preferences(task, preferences=False))
    assert texts(task, batch) == [("one", "12"), ("two", "12")]
    assert caplog.messages == [
        "examples, train: the rejected answers of 2 of 2 examples are not used; gin/runs/dpo.gin learns from them"
    ]


@pytest.mark.parametrize("flag", [True, 0, None, {"by": "a person"}])
def test_a_flag_of_this_name_is_not_read(write_jsonl, flag, caplog):
    task = data.get_task(data=write_jsonl([PAIR | {"rejected": flag}] * 2))
    assert texts(task, first_batch(preferences(task, preferences=False))) == [("one", "12")] * 2
    assert "keys that are not read, and have no effect: 'rejected' (2 of 2)" in caplog.text


ASKED, REPLY, OTHER = say("2 + 3")[:1], say("2 + 3", "five")[1:], say("2 + 3", "six")[1:]
FORMS = {
    "prompt apart": {"prompt": ASKED, "chosen": REPLY, "rejected": OTHER},
    "prompt within": {"chosen": ASKED + REPLY, "rejected": ASKED + OTHER},
    "prompt as text too": {"prompt": "2 + 3", "chosen": ASKED + REPLY, "rejected": ASKED + OTHER},
    "prompt as text alone": {"prompt": "2 + 3", "chosen": REPLY, "rejected": OTHER},
    "all texts": {"prompt": "2 + 3", "chosen": "five", "rejected": "six"},
    "messages": {"messages": ASKED + REPLY, "rejected": OTHER},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_conversation_is_the_same_pair(chat_task, form):
    task = chat_task(FORMS[form])
    prompt = task.input_vocabulary.encode_prompt("2 + 3")
    batch = first_batch(preferences(task))
    for row, answer in enumerate(("five", "six")):
        prompts, answers = prompts_of(batch), answers_of(batch)
        assert prompts.tokens[row][: prompts.lengths[row]].tolist() == prompt
        assert task.decode(answers.tokens[row][: answers.lengths[row]]).strip() == answer


def test_the_last_turns_of_longer_conversations_are_compared(chat_task):
    start = say("a", "b", "c")
    task = chat_task({"chosen": [*start, *say("c", "yes")[1:]], "rejected": [*start, *say("c", "no")[1:]]})
    batch = first_batch(preferences(task, lengths={"inputs": 64, "targets": 12}))
    np.testing.assert_array_equal(batch.prompt_tokens[0], batch.prompt_tokens[1])
    assert [answer.strip() for _, answer in texts(task, batch)] == ["yes", "no"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (PAIR | {"rejected": "12"}, "line 1: the rejected answer equals the chosen one"),
        (PAIR | {"rejected": ["3", "4"]}, "line 1: rejected is a list, not a string"),
        (PAIR | {"rejected": None}, "1 of 1 examples have no rejected answer"),
        (PAIR | {"rejected": False}, "1 of 1 examples have no rejected answer"),
        (PAIR | {"Rejected": "3", "rejected": "4"}, None),
        (
            {"prompt": "one", "chosen": "12", "Rejected": "3"},
            "the key 'Rejected' is not read: write 'rejected'",
        ),
        ({"chosen": "12", "rejected": "3"}, "line 1: no key 'inputs'"),
        (PAIR | {"targets": "12"}, "'targets' and 'chosen' may both be the targets"),
    ],
)
def test_what_is_no_pair_of_texts_is_one_line(write_jsonl, row, words):
    def make():
        preferences(data.get_task(data=write_jsonl([row])))

    if words is None:
        make()
        return
    with pytest.raises(UserError) as caught:
        make()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"chosen": ASKED + REPLY, "rejected": say("4 + 4", "six")},
            "has another prompt than the chosen one",
        ),
        (
            {"chosen": ASKED + REPLY, "rejected": "six"},
            "line 1: rejected is str, and the chosen answer is a conversation",
        ),
        (
            {"chosen": ASKED + REPLY, "rejected": ASKED},
            "line 1: rejected: no message has the role 'assistant'",
        ),
        ({"chosen": ASKED + REPLY, "rejected": ASKED + REPLY}, "equals the chosen one"),
        ({"chosen": ASKED + REPLY, "rejected": []}, "line 1: rejected: messages is empty"),
        ({"chosen": ASKED + REPLY, "rejected": [{"role": "assistant"}]}, "has no 'content'"),
    ],
)
def test_what_is_no_pair_of_conversations_is_one_line(chat_task, row, words):
    with pytest.raises(UserError) as caught:
        preferences(chat_task(row))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_settings_that_do_not_fit_are_refused(write_jsonl):
    task = data.get_task(data=write_jsonl([PAIR, {"prompt": "two", "chosen": "3"}]))
    with pytest.raises(UserError, match="1 of 2 examples have no rejected answer"):
        preferences(task)
    with pytest.raises(UserError, match="BATCH_SIZE=3: it counts rows, two for each preference"):
        preferences(task, batch_size=3)
    for settings in ({"pack": True}, {"buckets": 2}):
        with pytest.raises(UserError, match="two rows of one length"):
            preferences(task, **settings)


def test_a_rejected_answer_over_length_is_told_and_refused_without_truncation(write_jsonl, caplog):
    task = data.get_task(data=write_jsonl([PAIR | {"rejected": "3" * 20}]))
    batch = first_batch(preferences(task))
    assert not answers_of(batch).terminal[1]
    assert "rejected answers: 1 of 1 targets are longer than 12 tokens" in caplog.text
    with pytest.raises(UserError, match="rejected answers: 1 of 1 targets are longer"):
        preferences(task, truncate=False)


def test_other_rejected_answers_are_other_data(write_jsonl):
    one, other = (
        tokenized_records(
            data.get_task(data=write_jsonl([PAIR | {"rejected": text}], f"{text}.jsonl")).tasks[0], "train"
        )
        for text in ("6", "7")
    )
    assert one.content != other.content and one.preferences == 1
    assert one.rejected_lengths.tolist() == [[4, 2]]  # With EOS.


def test_a_seqio_task_may_pass_on_a_text_of_this_name(make_task, single):
    """It is no rejected answer: those are tokens."""
    import tensorflow as tf

    from lmirl_jax.data.seqio_library import seqio

    def dataset(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["a"], "targets": ["b"], "rejected": ["c"]})

    source = seqio.FunctionDataSource(dataset, splits=("train",))
    records = tokenized_records(make_task({"train": []}, source=source), "train")
    assert records.preferences == 0 and json.dumps(records.source[0].features["rejected"])
    assert dataclasses.asdict(records)["rejected_lengths"].tolist() == [[0, 0]]

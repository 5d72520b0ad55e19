"""Conversations in files: training rows, validation, prompts and pairs, and the errors of each."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from lmirl_jax import data
from lmirl_jax.data import records as records_module
from lmirl_jax.data import split_checks
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.rows import answers_of, prompts_of
from lmirl_jax.types import UserError
from tests.data.chat_templates import say

LENGTHS = {"inputs": 64, "targets": 64}
TWO = say("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def task_of(hf_chat, write_jsonl):
    """A task over rows, with the vocabulary of a style; or over the rows' file itself."""

    def make(rows, style="qwen", **settings):
        path = rows if isinstance(rows, str) else write_jsonl(rows)
        folder = hf_chat.get(style, style)
        return data.get_task(data=path, vocabulary_path=str(folder), **settings)

    return make


@pytest.fixture(autouse=True)
def warn_again():
    split_checks.warn_once.cache_clear()


def messages(*conversation, **more):
    return {"messages": list(conversation)} | more


def first_batch(task, **settings):
    settings = {"batch_size": 1, "lengths": LENGTHS, "shuffle": False} | settings
    iterator = data.TrainDataset(task, **settings).iterator(slice(0, settings["batch_size"]))
    try:
        return next(iterator)
    finally:
        iterator.close()


def test_one_question_is_the_same_as_inputs_and_targets(task_of):
    rows = [messages(*say("compare 1", "2 and")), {"inputs": "compare 1", "targets": "2 and"}]
    records = tokenized_records(task_of(rows).tasks[0], "train")
    one, other = (records.source[i] for i in range(2))
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.targets, other.targets)
    assert (
        one.features
        == other.features
        == {"inputs_pretokenized": "compare 1", "targets_pretokenized": "2 and"}
    )
    assert (records.conversations, records.without_eos) == (0, 0)


def test_the_record_of_a_conversation(task_of):
    task = task_of([messages(*TWO, *say("e"))])
    records = tokenized_records(task.tasks[0], "train")
    example, chat = records.source[0], task.input_vocabulary.encode_chat(TWO)
    np.testing.assert_array_equal(example.inputs, chat.inputs)
    np.testing.assert_array_equal(example.targets, chat.targets)
    text = "system\nYou help.\nuser\na\nassistant\nb\nuser\nc\nassistant\n"
    # The message behind the last answer is left out.
    assert example.features == {
        "assistant_turns": [list(turn) for turn in chat.turns],
        "inputs_pretokenized": text,
        "messages": TWO[:3],
        "targets_pretokenized": "d",
    }
    begin = chat.turns[-1][0]
    np.testing.assert_array_equal(records.lengths, [[len(chat.inputs), len(chat.targets)]])
    np.testing.assert_array_equal(
        records.last_lengths, [[len(chat.inputs) + begin, len(chat.targets) - begin]]
    )
    assert records.conversations == 1


@pytest.mark.parametrize(("episodes", "between"), [("turns", 0.0), ("conversation", 0.5)])
def test_a_training_row_of_two_turns(task_of, episodes, between):
    task = task_of([messages(*TWO, weight=3)])
    chat = task.input_vocabulary.encode_chat(TWO)
    batch = first_batch(task, discount=0.5, episodes=episodes)
    size, (first, second) = len(chat.targets), chat.turns
    gap = second[0] - first[1]
    np.testing.assert_array_equal(batch.tokens[0, :size], chat.targets)
    np.testing.assert_array_equal(batch.prompt_tokens[0, : len(chat.inputs)], chat.inputs)
    np.testing.assert_array_equal(batch.positions[0, :size], np.arange(size))
    np.testing.assert_array_equal(batch.weights[0, :size], [3, 3, *[0] * gap, 3, 3])
    np.testing.assert_array_equal(batch.td_weights[0, :size], [1, 1, *[0] * gap, 1, 1])
    np.testing.assert_array_equal(batch.discounts[0, :size], [0.5, between, *[between] * gap, 0.5, 0])
    assert not batch.weights[0, size:].any() and (batch.segment_ids[0] > 0).sum() == size


def test_the_last_turn_alone(task_of):
    """What learners with rollouts, and evaluation, read: rows with one answer."""
    task = task_of([messages(*TWO, reward=2.5)])
    chat = task.input_vocabulary.encode_chat(TWO)
    begin = chat.turns[-1][0]
    batch = first_batch(task, turns="last")
    validation = data.EvalDataset(task, LENGTHS, split="train")
    ((evaluated, examples),) = validation.batches(1)
    for found in (batch, evaluated):
        prompts, answers = prompts_of(found), answers_of(found)
        assert prompts.tokens[0, : prompts.lengths[0]].tolist() == chat.inputs + chat.targets[:begin]
        assert answers.tokens[0, : answers.lengths[0]].tolist() == chat.targets[begin:]
        assert answers.terminal[0]
        np.testing.assert_array_equal(found.weights[0, :3], [1, 1, 0])
        np.testing.assert_array_equal(found.rewards[0, :3], [0, 2.5, 0])
    assert examples[0]["messages"] == TWO[:3] and validation.target(examples[0]) == "d"
    assert validation.metrics(["d"]) == {"exact_match": 1.0}


def test_the_reward_of_a_conversation_is_paid_at_its_end(task_of):
    task = task_of([messages(*TWO, reward=2.5)])
    batch, size = first_batch(task), len(task.input_vocabulary.encode_chat(TWO).targets)
    np.testing.assert_array_equal(batch.rewards[0, :size], [*[0] * (size - 1), 2.5])
    with pytest.raises(
        UserError, match=r"line 1: rewards for the tokens of 2 assistant turns; write 'reward'"
    ):
        first_batch(task_of([messages(*TWO, rewards=[0.0] * size)]))
    one = task_of([messages(*say("a", "b"), rewards=[1.0, 2.0])])
    np.testing.assert_array_equal(first_batch(one).rewards[0, :3], [1, 2, 0])


def test_long_prompts_of_a_chat_keep_their_end(task_of, caplog):
    task = task_of([messages(*TWO), {"inputs": "a" * 99, "targets": "b"}])
    lengths = {"inputs": 16, "targets": 8}
    chat = task.input_vocabulary.encode_chat(TWO)
    batch = first_batch(task, batch_size=2, lengths=lengths)
    np.testing.assert_array_equal(batch.prompt_tokens[0], chat.inputs[-16:])
    np.testing.assert_array_equal(batch.prompt_tokens[1], task.input_vocabulary.encode_prompt("a" * 99)[-16:])
    assert (
        "2 of 2 inputs are longer than 16 tokens, 1 of 2 targets are longer than 8 tokens and are truncated"
        in caplog.text
    )
    evaluated, _ = next(data.EvalDataset(task, lengths, split="train").batches(1))
    np.testing.assert_array_equal(
        evaluated.prompt_tokens[0], (chat.inputs + chat.targets[: chat.turns[1][0]])[-16:]
    )


def test_turns_that_the_template_rewrites_are_counted(task_of, caplog):
    task = task_of([messages(*TWO), messages(*say("a", "b"))], style="thinking")
    first_batch(task)
    assert (
        "of 1 of 2 conversations only the last assistant turn is learnt: the chat template writes"
        in caplog.text
    )
    caplog.clear()
    split_checks.warn_once.cache_clear()
    first_batch(task, turns="last")
    assert "only the last" not in caplog.text


def test_turns_are_part_of_the_data(task_of, monkeypatch):
    """The same tokens with other turns are other data."""
    task, fingerprints = task_of([messages(*TWO)]), []
    for shift in (0, 1):
        encode = task.tasks[0].encode

        def moved(self, where, row, shift=shift, encode=encode):
            example = encode(where, row)
            example.features["assistant_turns"][0][1] += shift
            return example

        monkeypatch.setattr(type(task.tasks[0]), "encode", moved)
        monkeypatch.setattr(records_module, "FORMAT_VERSION", shift)
        fingerprints.append(data.TrainDataset(task, 1, LENGTHS).fingerprint)
        monkeypatch.undo()
    assert len(set(fingerprints)) == 2


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (messages(*say("a")), r"line 2: no message has the role 'assistant', so there is nothing to learn"),
        ({"messages": []}, r"line 2: messages is empty; write one"),
        ({"messages": "a"}, r"line 2: messages is str, not a list"),
        ({"messages": ["a"]}, r"line 2: message 1 is str, not an object"),
        ({"messages": [{"role": "user"}]}, r"line 2: message 1 has no 'content' \(found: role\)"),
        ({"messages": [{"a\rb": ""}]}, r"line 2: message 1 has no 'role' \(found: a\\rb\); write"),
        ({"messages": [{"role": "user", "content": 3}]}, r"line 2: message 1: content is int, not a string"),
        (
            {"messages": [{"role": "user", "content": [{"text": ""}]}]},
            r"message 1: content is a list.*only text is read",
        ),
        (
            {"messages": [*say("a", "b"), {"role": "usr", "content": ""}]},
            r"message 3 has the role 'usr', which the chat",
        ),
        ({"messages": say("a", "b"), "targets": "c"}, r"line 2: 'messages' and 'targets'; keep the messages"),
        (
            {"inputs": "a"},
            r"line 2: no key 'targets' \(found: inputs\); every row needs inputs and targets, or messages",
        ),
        ({"massages": [], "inputs": "a"}, r"line 2: no key 'targets'"),
        ({"Messages": say("a", "b")}, r"line 2: the key 'Messages' is not read: write 'messages'"),
    ],
)
def test_errors_name_the_line(task_of, row, error):
    with pytest.raises(UserError, match=error) as raised:
        first_batch(task_of([messages(*say("a", "b")), row]))
    assert "\n" not in str(raised.value)


def test_what_the_template_refuses_names_both_lines(task_of):
    with pytest.raises(
        UserError, match=r"jsonl, line 1: .*jinja, line 1 refuses the conversation \(System role not"
    ):
        first_batch(task_of([messages(*say("a", "b", system="c"))], style="gemma"))
    tool = messages(*say("a", "b"), {"role": "tool", "content": "c"}, {"role": "assistant", "content": "d"})
    assert first_batch(task_of([tool])).weights.sum() == 4
    with pytest.raises(
        UserError, match="message 3 has the role 'tool', which the chat template does not name"
    ):
        first_batch(task_of([tool], style="plain"))


def test_messages_need_a_chat_template(task_of, hf_bytes, write_jsonl):
    path = write_jsonl([messages(*say("a", "b"))])
    for settings in ({"style": hf_bytes}, {"chat": False}):
        with pytest.raises(UserError, match=r"line 1: messages need a chat template.*set VOCABULARY_PATH"):
            first_batch(task_of(path, **settings))
    with pytest.raises(UserError, match="messages need a chat template"):
        first_batch(data.get_task(data=path))
    with pytest.raises(UserError, match=r"CHAT=True, and the tokenizer at .* has no chat template"):
        task_of(path, style=hf_bytes, chat=True)
    with pytest.raises(UserError, match=r"CHAT=True: bytes have no chat template"):
        data.get_task(data=path, chat=True)


def test_other_formats(task_of, tmp_path):
    rows = [messages(*TWO), {"inputs": "a", "targets": "b"}, messages(*say("a", "b", system="c"))]
    array = tmp_path / "rows.json"
    array.write_text(json.dumps(rows))
    columns = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.Table.from_pylist([rows[0] | {"inputs": None, "targets": None}, rows[1], rows[2]]), columns
    )
    lines = tokenized_records(task_of(rows).tasks[0], "train")
    for path in (array, columns):
        assert tokenized_records(task_of(str(path)).tasks[0], "train").content == lines.content


def test_prompts_of_conversations(task_of, write_jsonl):
    task = task_of([messages(*TWO)])
    rows = [
        messages(*TWO),
        messages(*TWO[:3]),
        messages(*say("a")),
        {"inputs": "a"},
        messages(*say("a", "b")),
    ]
    prompts = data.PromptFile(write_jsonl(rows, "prompts.jsonl"), task, LENGTHS)
    batch, examples = next(prompts.batches(8))
    found = prompts_of(batch)
    expected = [TWO[:3], TWO[:3], say("a"), say("a"), say("a")]
    for row, conversation in enumerate(expected):
        ids = task.input_vocabulary.encode_messages(conversation)
        assert found.tokens[row, : found.lengths[row]].tolist() == ids
        assert examples[row].get("messages", say(examples[row]["inputs_pretokenized"])) == conversation
    assert [each.get("targets_pretokenized") for each in examples] == ["d", None, None, None, "b"]
    assert examples[0]["sampling_id"] != examples[1]["sampling_id"]
    with pytest.raises(
        UserError, match="line 1: the only message is an answer; write the message of a user before it"
    ):
        data.PromptFile(write_jsonl([messages(TWO[1])]), task, LENGTHS)
    short = data.PromptFile(write_jsonl(rows[:1]), task, {"inputs": 8, "targets": 8})
    np.testing.assert_array_equal(
        next(short.batches(1))[0].prompt_tokens[0], task.input_vocabulary.encode_messages(TWO[:3])[-8:]
    )


def test_pairs_of_conversations(task_of, write_jsonl):
    task = task_of([messages(*TWO)])
    vocabulary = task.output_vocabulary
    rows = [
        messages(*TWO, id=7),
        messages(*TWO, candidates=["x = 1", ""]),
        messages(*TWO[:3], samples=["y"], targets="z"),
        messages(*TWO[:3], targets="z"),
    ]
    pairs = list(data.PairFile(write_jsonl(rows, "pairs.jsonl"), task, LENGTHS))
    assert [(pair.targets, pair.reference) for pair in pairs] == [
        ("d", None),
        ("x = 1", "d"),
        ("", "d"),
        ("y", "z"),
        ("z", None),
    ]
    assert pairs[0].id == "7" and all(pair.messages == TWO[:3] for pair in pairs)
    for pair in pairs:
        assert pair.input_tokens.tolist() == vocabulary.encode_messages(TWO[:3])
        assert pair.target_tokens.tolist() == [*vocabulary.encode(pair.targets), vocabulary.eos_ids[0]]
        # The pieces of a heat map.
        spans = [pair.targets[begin:end] for begin, end in pair.offsets]
        assert "".join(spans) == pair.targets and len(spans) == len(pair.target_tokens)
    (short, *_) = data.PairFile(write_jsonl(rows[:1]), task, {"inputs": 8, "targets": 8})
    assert short.input_tokens.tolist() == vocabulary.encode_messages(TWO[:3])[-8:]
    (own,) = data.TaskPairs(task, "train", LENGTHS)
    assert (own.targets, own.messages, own.offsets) == ("d", TWO[:3], ((0, 1), (1, 1)))
    np.testing.assert_array_equal(own.input_tokens, pairs[0].input_tokens)
    for row in (messages(*TWO[:3]), messages(*TWO, samples=["a"], candidates=["b"])):
        with pytest.raises(UserError, match=r"line 1: (neither|candidates and samples)"):
            data.PairFile(write_jsonl([row]), task, LENGTHS)


def test_a_task_of_seqio_is_a_chat_too(make_task, hf_chat):
    make_task({"train": [("compare 1", "2")]}, "asks", register=True)
    path = str(hf_chat["llama 3"])
    task = data.get_task("asks", vocabulary_path=path)
    vocabulary = data.vocabulary(path)
    batch = first_batch(task)
    assert batch.prompt_tokens[0, : batch.prompt_segment_ids[0].sum()].tolist() == vocabulary.encode_prompt(
        "compare 1"
    )
    assert batch.tokens[0, :2].tolist() == [*vocabulary.encode("2"), vocabulary.eos_ids[0]]
    assert (
        task.eos_ids == vocabulary.eos_ids
        and task.decode_inputs(batch.prompt_tokens[0, : (batch.prompt_segment_ids > 0).sum()]) == "compare 1"
    )
    raw = data.get_task("asks", vocabulary_path=path, chat=False)
    assert first_batch(raw).prompt_segment_ids.sum() < batch.prompt_segment_ids.sum()
    assert raw.vocabulary_fingerprints != task.vocabulary_fingerprints
    with pytest.raises(
        UserError, match="CHAT=True, and asks has a vocabulary of its own: set VOCABULARY_PATH"
    ):
        data.get_task("asks", chat=True)


def test_a_task_without_data_has_the_template_too(hf_chat):
    path = str(hf_chat["qwen"])
    task = data.get_task_or_vocabulary(vocabulary_path=path)
    assert task.input_vocabulary.encode_prompt("a") == data.vocabulary(path).encode_prompt("a")
    assert data.get_task_or_vocabulary(vocabulary_path=path, chat=False).eos_ids == (2,)


def test_smollm2_learns_what_it_generates(task_of, shared_data):
    """The row of a real chat: the prompt as transformers writes it, the answer, and nothing else."""
    folder = shared_data / "checkpoints" / "smollm2_135m_instruct"
    for chat in json.loads((folder / "expected.json").read_text())["chat"]:
        answer = {"role": "assistant", "content": chat["greedy_text"].removesuffix("<|im_end|>")}
        task = task_of([messages(*chat["messages"], answer)], style=folder)
        batch = first_batch(task, lengths={"inputs": 256, "targets": 256})
        ids = chat["greedy_ids"] if chat["greedy_ids"][-1] == 2 else [*chat["greedy_ids"], 2]
        found = prompts_of(batch)
        assert found.tokens[0, : found.lengths[0]].tolist() == chat["prompt_ids"]
        np.testing.assert_array_equal(batch.tokens[0, : len(ids)], ids)
        assert batch.weights.sum() == batch.td_weights.sum() == len(ids)


def test_features_are_read_only_where_there_are_turns(task_of, monkeypatch):
    files = []

    def read(*arguments):
        dataset = data.TrainDataset(task_of(*arguments), 1, LENGTHS)
        monkeypatch.setattr(json, "loads", lambda text: files.append(text) or {})
        next(dataset.iterator(slice(0, 1)))
        monkeypatch.undo()
        return len(files)

    assert read([messages(*say("a", "b"))]) == 0
    assert read([messages(*TWO)]) > 0

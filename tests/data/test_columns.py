"""The names of columns: the usual ones, those that COLUMNS gives, and every case that is not clear in one line."""

import json
import pickle

import pytest

from lmirl_jax import data
from lmirl_jax.data.columns import Columns
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 64, "targets": 64}
ASKED = [{"role": "user", "content": "2 + 3?"}]
ANSWERED = [{"role": "assistant", "content": "5"}]


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def examples(path, tmp_path, **settings):
    task = data.get_task(data=path, **settings)
    return data.EvalDataset(task, LENGTHS, "train", cache_dir=str(tmp_path / "cache")).examples


def texts(found):
    return [(example["inputs_pretokenized"], example["targets_pretokenized"]) for example in found]


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        ({"inputs": "a", "targets": "b"}, None, ("a", "b")),
        ({"prompt": "a", "completion": "b"}, None, ("a", "b")),
        ({"question": "a", "answer": "b"}, None, ("a", "b")),
        ({"instruction": "a", "output": "b"}, None, ("a", "b")),
        ({"instruction": "a", "input": "", "output": "b"}, None, ("a", "b")),
        ({"instruction": "a", "input": None, "output": "b"}, None, ("a", "b")),
        ({"instruction": "Add:", "input": "1 2", "output": "3"}, None, ("Add:\n\n1 2", "3")),
        # A column that COLUMNS names is taken as it stands.
        ({"instruction": "a", "input": "c", "output": "b"}, {"inputs": "instruction"}, ("a", "b")),
        ({"input": "a", "output": "b"}, {"inputs": "input"}, ("a", "b")),
        ({"query": "a", "response": "b"}, {"inputs": "query", "targets": "response"}, ("a", "b")),
        ({"inputs": "x", "prompt": "a", "answer": "b"}, {"inputs": "prompt"}, ("a", "b")),
        ({"targets": "a", "inputs": "b"}, {"inputs": "targets", "targets": "inputs"}, ("a", "b")),
        ({"messages": "chat", "inputs": "a", "targets": "b"}, {"inputs": "inputs"}, ("a", "b")),
    ],
)
def test_prompt_and_answer_are_found(tmp_path, row, columns, expected):
    path = write(tmp_path, [row])
    assert texts(examples(path, tmp_path, columns=columns)) == [expected]


def test_the_same_columns_are_those_of_prompts_and_answers(tmp_path):
    task = data.get_task(
        data=write(tmp_path, [{"query": "a", "reply": "b"}]), columns={"inputs": "query", "targets": "reply"}
    )
    for rows in (
        [{"query": "a", "reply": "b"}],
        [{"prompt": "a", "completion": "b"}],
        [{"inputs": "a", "targets": "b"}],
    ):
        path = write(tmp_path, rows, "other.jsonl")
        (prompt,), (pair,) = data.PromptFile(path, task, LENGTHS).examples, data.PairFile(path, task, LENGTHS)
        assert texts([prompt]) == [("a", "b")] and (pair.inputs, pair.targets) == ("a", "b")


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            {"inputs": "a", "prompt": "b", "targets": "c"},
            None,
            r"'inputs' and 'prompt' may both be the inputs: say which by COLUMNS, such as --gin.COLUMNS=.{'inputs': 'inputs'}",
        ),
        (
            {"prompt": "a", "output": "b", "answer": "c"},
            None,
            r"'answer' and 'output' may both be the targets",
        ),
        (
            {"prompt": "a", "messages": []},
            None,
            r"'messages' and 'prompt' may both hold the inputs: .*{'messages': 'messages'}",
        ),
        ({"messages": [], "answer": "a"}, None, r"'messages' and 'answer' may both hold the targets"),
        (
            {"prompt": "a"},
            None,
            r"no key 'targets' \(found: prompt\); every row needs inputs and targets, or messages, or names",
        ),
        (
            {"inputs": "a", "targets": "b"},
            {"inputs": "query"},
            r"no key 'query', which COLUMNS names \(found: inputs, targets\)",
        ),
        ({"inputs": "a", "targets": "b"}, {"messages": "chat"}, r"no key 'chat', which COLUMNS names"),
        ({"instruction": "a", "input": 3, "output": "b"}, None, r"input is int, not a string"),
        ({"prompt": "a", "completion": 3}, None, r"completion is int, not a string"),
        ({"prompt": ["a"], "completion": "b"}, None, r"prompt is a list, not a string; write one string"),
        (
            {"prompt": ASKED, "completion": "5"},
            None,
            r"'prompt' is a list of messages and 'completion' is none; write both",
        ),
        (
            {"prompt": "2 + 3?", "completion": ANSWERED},
            None,
            r"'completion' is a list of messages and 'prompt' is none",
        ),
        ({"completion": ANSWERED}, None, r"'completion' is a list of messages and 'inputs' is none"),
        (
            {"inputs": ASKED, "targets": ANSWERED, "messages": []},
            None,
            r"'messages' beside other messages in 'inputs'",
        ),
    ],
)
def test_what_is_not_clear_is_one_line(tmp_path, row, columns, message):
    path = write(tmp_path, [row])
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: " + message) as raised:
        examples(path, tmp_path, columns=columns)
    assert "\n" not in str(raised.value)


def test_a_name_that_no_row_has_is_refused(tmp_path):
    rows = [{"inputs": "a", "targets": "b", "w": 2}, {"inputs": "c", "targets": "d"}]
    path = write(tmp_path, rows)
    assert [row["weight"] for row in examples(path, tmp_path, columns={"weight": "w"})] == [2, 1]
    with pytest.raises(UserError, match="COLUMNS names 'v' as the weight, and no row has it"):
        examples(path, tmp_path, columns={"weight": "v"})


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"input": "a"},
        {"inputs": ""},
        {"inputs": 3},
        {"inputs": "a", "targets": "a"},
        {"messages": "a", "inputs": "b"},
        "a",
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path, columns):
    with pytest.raises(
        UserError, match=r"columns=.* must be .*\{'inputs': 'question', 'targets': 'answer'\}"
    ):
        data.get_task(data="any.jsonl", columns=columns)


def test_columns_are_part_of_the_identity(tmp_path):
    path = write(tmp_path, [{"inputs": "a", "targets": "b", "other": "c"}])
    parts = [data.get_task(data=path, columns=columns).tasks[0] for columns in (None, {"targets": "other"})]
    plain, other = (part.fingerprint("train", 1) for part in parts)
    assert plain != other and pickle.loads(pickle.dumps(parts[1])).fingerprint("train", 1) == other
    assert texts(examples(path, tmp_path, columns={"targets": "other"})) == [("a", "c")]
    assert texts(examples(path, tmp_path)) == [("a", "b")]


def test_columns_that_are_not_read_are_reported(tmp_path, caplog):
    warn_once.cache_clear()
    row = {"inputs": "a", "prompt": "b", "targets": "c", "note": "d"}
    examples(write(tmp_path, [row, row]), tmp_path, columns={"inputs": "prompt"})
    (line,) = [line for line in caplog.messages if "not read" in line]
    assert "'inputs' (2 of 2)" in line and "'note' (2 of 2" in line and "prompt" not in line


def test_numbers_and_lists_of_csv_are_read_and_texts_stay_texts(tmp_path):
    text = 'question,answer,weight,reward\n1,"[2]",0.5,-1\n3,4,,\n'
    found = examples(write(tmp_path, text, "rows.csv"), tmp_path)
    assert texts(found) == [("1", "[2]"), ("3", "4")]
    assert [example["weight"] for example in found] == [0.5, 1.0]
    assert [example.get("reward") for example in found] == [-1.0, None]
    with pytest.raises(UserError, match=r"other\.csv, line 2: weight is str, not a number"):
        examples(write(tmp_path, "inputs,targets,weight\na,b,much\n", "other.csv"), tmp_path)


def test_candidates_of_csv_are_json(tmp_path):
    task = data.get_task(data=write(tmp_path, [{"inputs": "a", "targets": "b"}]))
    path = write(tmp_path, 'prompt,candidates\na,"[""b"", ""c""]"\n', "pairs.csv")
    assert [pair.targets for pair in data.PairFile(path, task, LENGTHS)] == ["b", "c"]


def test_messages_as_prompt_and_completion_are_a_conversation():
    row = Columns().read({"prompt": ASKED, "completion": ANSWERED, "weight": 2}, "here")
    assert row.values == {"messages": ASKED + ANSWERED, "weight": 2}
    assert Columns().read({"prompt": ASKED}, "here").values == {"messages": ASKED}
    named = Columns({"inputs": "ask", "targets": "say"}).read({"ask": ASKED, "say": ANSWERED}, "here")
    assert named.values == {"messages": ASKED + ANSWERED}


def test_conversations_of_either_form_are_the_same_example(tmp_path, hf_chat):
    path = str(hf_chat["qwen"])
    forms = [
        {"messages": ASKED + ANSWERED},
        {"prompt": ASKED, "completion": ANSWERED},
        {"chat": ASKED + ANSWERED},
    ]
    found = []
    for number, row in enumerate(forms):
        columns = {"messages": "chat"} if "chat" in row else None
        file = write(tmp_path, [row], f"{number}.jsonl")
        found += examples(file, tmp_path, columns=columns, vocabulary_path=path)
    assert len({(example["inputs"].tobytes(), example["targets"].tobytes()) for example in found}) == 1
    assert texts(found) == [("2 + 3?", "5")] * 3

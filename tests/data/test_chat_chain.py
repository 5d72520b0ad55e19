"""Conversations of several turns from `lmirl infer` through `score` and `filter` to a training set: the tokens stay the same."""

import json

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.cli import main
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.task_parts import last_turn
from lmirl_jax.rewards import read_scored
from tests.data.chat_templates import say
from tests.fakes import make_run

LENGTHS = {"inputs": 96, "targets": 96}
CONVERSATIONS = [say("compare 1", "2", "y ?", "a"), say("x", "1 < 2", system="Be brief."), say("b", "c")]


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def bind(**macros):
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


@pytest.fixture
def run(tmp_path, hf_chat, write_jsonl, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    path = write_jsonl([{"messages": messages} for messages in CONVERSATIONS])
    macros = {"DATA": path, "VOCABULARY_PATH": str(hf_chat["qwen"]), "TASK_FEATURE_LENGTHS": LENGTHS}
    bindings = ["MIXTURE_OR_TASK_NAME = None", *(f"{key} = {value!r}" for key, value in macros.items())]
    return make_run(tmp_path / "run", *bindings), path


@pytest.mark.slow
def test_every_stage_reads_the_same_conversation(run, hf_chat, tmp_path, capsys):
    checkpoint, path = run
    given = bind(CHECKPOINT_PATH=str(checkpoint))
    answered, scored, kept = (tmp_path / f"{name}.jsonl" for name in ("answered", "scored", "kept"))
    macros = bind(PROMPTS=path, OUTPUT_PATH=str(answered), NUM_SAMPLES=1)
    assert main(["infer", "--gin_file=gin/runs/infer.gin", *given, *macros]) == 0
    lines = read_lines(answered)
    prompts = [messages[:-1] for messages in CONVERSATIONS]
    # A single question is `inputs` alone.
    assert [line.get("messages") for line in lines] == [*prompts[:2], None]
    assert [line["targets"] for line in lines] == ["a", "1 < 2", "c"]

    # An untrained model writes bytes that are no text: texts take their place.
    texts = [["1", "2 and"], ["für"], ["x"]]
    for line, samples in zip(lines, texts, strict=True):
        line["samples"] = samples
        line.pop("tokens", None)
    answered.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for output in (scored, scored.with_suffix(".parquet")):
        macros = bind(DATA=str(answered), OUTPUT_PATH=str(output))
        assert main(["score", "--gin_file=gin/runs/score.gin", *given, *macros]) == 0
    answers = list(read_scored(scored))
    assert [answer.messages and list(answer.messages) for answer in answers] == [
        *prompts[:1] * 2,
        prompts[1],
        None,
    ]
    assert list(read_scored(scored.with_suffix(".parquet"))) == answers
    assert "messages" in read_lines(scored)[0] and "messages" not in read_lines(scored)[3]

    macros = bind(SCORED=str(scored), OUTPUT_PATH=str(kept))
    assert main(["filter", "--gin_file=gin/runs/filter.gin", *macros]) == 0
    last = {"role": "assistant", "content": "2 and"}
    assert read_lines(kept)[1] == {"messages": [*prompts[0], last]}
    assert read_lines(kept)[3] == {"inputs": "b", "targets": "x"}

    vocabulary = data.vocabulary(str(hf_chat["qwen"]))
    task = data.get_task(data=str(kept), vocabulary_path=str(hf_chat["qwen"]))
    records = tokenized_records(task.tasks[0], "train")
    examples = [last_turn(records.source[i]) for i in range(4)]
    pairs = list(data.PairFile(str(answered), task, LENGTHS))
    asked = [vocabulary.encode_messages(messages) for messages in (prompts[0], *prompts)]
    for example, pair, answer, ids in zip(examples, pairs, answers, asked, strict=True):
        np.testing.assert_array_equal(example.inputs, ids)
        np.testing.assert_array_equal(pair.input_tokens, ids)
        np.testing.assert_array_equal(example.targets, answer.tokens)
        np.testing.assert_array_equal(pair.target_tokens, answer.tokens)

"""Answers with missing parts: the pairs of an inverse model, its fills, the consistency filter and the weights."""

import json

import pytest

from lmirl_jax.cli import main
from lmirl_jax.data.gaps import fill, missing_parts
from lmirl_jax.labelled import AnswerSet, Fills, Gaps
from lmirl_jax.tasks import operation_chains
from lmirl_jax.types import UserError

PROMPT, RIGHT = "7*3+8", "7*3=21\n21+8=29"
CHAINS = "lmirl_jax.tasks.operation_chains"
GAPPED = "___=21\n___=29"
ASKED = f"{PROMPT}\n{GAPPED}"


def answers(*texts, inputs=PROMPT, references=(), log_probs=None):
    return AnswerSet("a.jsonl:1", inputs, None, list(texts), list(references), token_log_probs=log_probs)


@pytest.mark.parametrize(
    "answer, gapped, parts",
    [
        (RIGHT, GAPPED, "7*3___21+8"),
        ("a b", "___", "a b"),
        ("ab", "a___b", ""),
        ("one\ntwo\nend", "___end", "one\ntwo\n"),
        (RIGHT, "___=21\n___=28", None),
    ],
)
def test_what_is_missing_fills_the_gaps(answer, gapped, parts):
    assert missing_parts(answer, gapped) == parts
    assert parts is None or fill(gapped, parts) == answer


@pytest.mark.parametrize("parts", ["7*3", "7*3___21+8___1", ""])
def test_another_number_of_parts_fills_nothing(parts):
    assert fill(GAPPED, parts) is None


def test_views_of_operation_chains_are_filled_by_what_is_missing():
    for prompt, answer in operation_chains.examples("test")[:50]:
        for view in (operation_chains.with_gaps, operation_chains.with_one_gap):
            (row,) = Gaps(view).rows(answers(answer, inputs=prompt), 0)
            gapped = row["inputs"].removeprefix(f"{prompt}\n")
            assert gapped == view(answer) and fill(gapped, row["targets"]) == answer
        assert len(Gaps(operation_chains.with_gaps).rows(answers(answer), 0)[0]["targets"]) < 64


def test_rows_that_teach_and_rows_that_ask():
    assert Gaps(operation_chains.with_gaps).rows(answers(RIGHT), 3) == [
        {"inputs": ASKED, "targets": "7*3___21+8", "id": "3-0"}
    ]
    assert Gaps().rows(answers(GAPPED), 3) == [{"inputs": ASKED, "targets": GAPPED, "id": "3-0"}]


def test_the_likeliest_consistent_fill_is_taken_with_its_probability():
    texts = ["7*3___21+7", "7*3___21+8", "7*3"]
    log_probs = [[-0.1], [-0.2, -0.3], [-0.0]]
    asked = answers(*texts, inputs=ASKED, references=[GAPPED], log_probs=log_probs)
    row = {"inputs": PROMPT, "targets": RIGHT, "id": "5"}
    checked = Fills(operation_chains.consistent)
    assert checked.rows(asked, 5) == [row | {"weight": 0.606531}]  # exp(-0.5)
    assert Fills(operation_chains.consistent, confidence="token").rows(asked, 5) == [
        row | {"weight": 0.778801}  # exp(-0.25)
    ]
    assert Fills(operation_chains.consistent, confidence=None).rows(asked, 5) == [row]
    # Without a filter the likeliest one that has a part for each gap.
    assert Fills().rows(asked, 5)[0]["targets"] == "7*3=21\n21+7=29"
    assert checked.rows(answers("1___2", inputs=ASKED, references=[GAPPED]), 5) == []


@pytest.mark.parametrize(
    "answer, consistent",
    [
        (RIGHT, 1),
        ("9+3=12\n12-2=10", 1),  # Not the prompt's operations.
        ("7*3=21\n20+8=28", 0),  # Another number than the result before it.
        ("7*3=22\n22+8=30", 0),
        ("7*3=21\n", 0),
        ("", 0),
    ],
)
def test_consistent_lines_compute_and_follow(answer, consistent):
    assert operation_chains.consistent(PROMPT, answer) == consistent


@pytest.mark.parametrize(
    "make, given, line",
    [
        (Gaps, answers(RIGHT), "has no ___, so nothing is missing: set VIEW"),
        (lambda: Gaps(lambda text: "___=3"), answers(RIGHT), "VIEW gave '___=3' for"),
        (lambda: Gaps(lambda text: text), answers(RIGHT), "return the same text with ___ for each"),
        (lambda: Gaps("json.nothing"), answers(RIGHT), "VIEW: module 'json' has no 'nothing'"),
        (lambda: Gaps(lambda text: None), answers(RIGHT), "VIEW gave None for"),
        (lambda: Gaps(lambda text: "___"), answers("a___b"), "which stands for a missing part"),
        (Fills, answers("1", inputs=ASKED), "no answer with gaps: name what lmirl infer wrote"),
        (Fills, answers("1", inputs=ASKED, references=["29"]), "no answer with gaps"),
        (Fills, answers("1___2", inputs=ASKED, references=[GAPPED]), "set CONFIDENCE=None"),
        (Gaps, answers("___")._replace(messages=[{}]), "write inputs in place of messages"),
    ],
)
def test_mistakes_are_one_line(make, given, line):
    with pytest.raises(UserError) as error:
        make().rows(given, 0)
    assert str(error.value).startswith(("a.jsonl:1: ", "VIEW: "))
    assert line in str(error.value) and "\n" not in str(error.value).replace("\\n", "")


def test_the_command_makes_and_fills_gaps(tmp_path, capfd):
    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"--gin.ANSWERS={str(tmp_path / name)!r}"

    def label(file, given, output, *more):
        return main(
            [
                "label",
                f"--gin_file=gin/runs/{file}.gin",
                given,
                f"--gin.OUTPUT_PATH={str(tmp_path / output)!r}",
                *more,
            ]
        )

    pairs = operation_chains.examples("test")[:3]
    complete = write("complete.jsonl", [{"inputs": i, "targets": t} for i, t in pairs])
    assert label("gaps", complete, "inverse.jsonl", f"--gin.VIEW='{CHAINS}.with_gaps'") == 0
    taught = [json.loads(line) for line in (tmp_path / "inverse.jsonl").read_text().splitlines()]
    gapped = [{"inputs": i, "targets": operation_chains.with_gaps(t)} for i, t in pairs]
    assert label("gaps", write("values.jsonl", gapped), "asked.jsonl") == 0
    asked = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    assert [row["inputs"] for row in asked] == [row["inputs"] for row in taught]
    # An oracle in place of the model, which errs in the last one.
    fills = [
        row | {"samples": [known["targets"]], "token_log_probs": [[-0.5]]}
        for row, known in zip(asked, taught, strict=True)
    ]
    fills[2]["samples"] = ["1+1"]
    more = [f"--gin.CHECKER='{CHAINS}.consistent'"]
    assert label("fill", write("fills.jsonl", fills), "filled.jsonl", *more) == 0
    assert "mean weight" in capfd.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "filled.jsonl").read_text().splitlines()]
    assert [(row["inputs"], row["targets"], row["weight"]) for row in rows] == [
        (*p, 0.606531) for p in pairs[:2]
    ]
    assert label("fill", "--gin.ANSWERS='nowhere.jsonl'", "none.jsonl") == 1
    assert label("gaps", complete, "none.jsonl") == 1
    assert "has no ___" in capfd.readouterr().err.splitlines()[-1]
    damaged = [fills[0] | {"token_log_probs": [0.5]}]
    assert label("fill", write("fills.jsonl", damaged), "none.jsonl") == 1
    assert "token_log_probs is no list of log-probabilities for each of 1 answers" in capfd.readouterr().err
    assert not list(tmp_path.glob("none*"))

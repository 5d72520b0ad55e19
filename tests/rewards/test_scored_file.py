"""Files of scored answers, read line by line."""

import dataclasses
import json

import pyarrow
import pytest
from pyarrow import parquet

from lmirl_jax.rewards import read_scored
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import UserError

ANSWER = ScoredAnswer(
    example=0,
    candidate=1,
    inputs="p",
    targets="é",
    reference=None,
    id="a",
    truncated=True,
    tokens=(198, 172),
    pieces=("é", ""),
    offsets=((0, 1), (1, 1)),
    q=(1.0, 2.0),
    v=(1.5, 2.5),
    reward=(-1.5, None),
    log_prob=(-0.5, -0.5),
    entropy=(0.1, 0.2),
    reference_log_prob=None,
    total=-1.5,
    normalised_return=-1.5,
    centred_return=None,
    v_0=1.5,
    log_likelihood=-1.0,
    metrics={"accuracy": 1.0},
)


def test_jsonl_comes_back(tmp_path):
    path = tmp_path / "scored.jsonl"
    other = dataclasses.replace(ANSWER, candidate=2)
    path.write_text(json.dumps(ANSWER.to_row()) + "\n\n" + json.dumps(other.to_row()) + "\n")
    assert list(read_scored(path)) == [ANSWER, other]


@pytest.mark.parametrize("kind", [pyarrow.map_(pyarrow.string(), pyarrow.float64()), None])
def test_parquet_comes_back(tmp_path, kind):
    path = tmp_path / "scored.parquet"
    table = pyarrow.Table.from_pylist([ANSWER.to_row()] * 3)
    if kind is not None:
        metrics = pyarrow.array([list(ANSWER.metrics.items())] * 3, kind)
        table = table.set_column(table.column_names.index("metrics"), "metrics", metrics)
    parquet.write_table(table, path)
    assert list(read_scored(path)) == [ANSWER] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"scored\.jsonl is empty: SCORED must be what lmirl score wrote"),
        ("{\n", r"scored\.jsonl, line 1: not JSON"),
        ("[]\n", r"scored\.jsonl is empty: SCORED must be what lmirl score wrote"),
        ("7\n", r"scored\.jsonl, line 1: not a JSON object"),
        ('{"inputs": "a"}\n', r"scored\.jsonl, line 1: no candidate, .* so this is no line of lmirl score"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "scored.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        list(read_scored(path))
    assert "\n" not in str(raised.value)


def test_other_files(tmp_path):
    with pytest.raises(UserError, match=r"no file at /no/such: SCORED must be"):
        list(read_scored("/no/such"))
    path = tmp_path / "scored.parquet"
    path.write_text("{}")
    with pytest.raises(UserError, match=r"scored\.parquet, after row 0: not Parquet \(") as raised:
        list(read_scored(path))
    assert "\n" not in str(raised.value)
    path = tmp_path / "latin.jsonl"
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl, after line 0: not UTF-8"):
        list(read_scored(path))

"""Any bytes as a file of rows: each is read to what its writer had, or refused in one line; never another exception."""

import csv
import gzip
import io
import json
import os
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmirl_jax import data
from lmirl_jax.data.formats import read_rows
from lmirl_jax.data.jsonl import READ
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

# A fixed budget in CI; more by hand, as in LMIRL_FUZZ_EXAMPLES=20000.
EXAMPLES = int(os.environ.get("LMIRL_FUZZ_EXAMPLES", "150"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LMIRL_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# Half of a surrogate pair has no UTF-8, so that no writer writes it as it is.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXT, JSON, max_size=4), min_size=1, max_size=5)
TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\n",
    b"\r",
    b"\t",
    b";",
    b" ",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
]
TOKENS += [
    b'{"inputs": "a", "targets": "b"}',
    b"inputs,targets",
    b"NaN",
    b"1e999",
    b"-",
    b"\\ud800",
    b'"weight": ',
    b"null",
]
TOKENS += [
    b"PAR1",
    b"ARROW1\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x1f\x8b\x08\x00",
    b"PK\x03\x04",
    "\u2028\x85".encode(),
    b"'",
]
HOSTILE = st.lists(st.sampled_from(TOKENS) | st.binary(max_size=4), max_size=14).map(b"".join)
ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".csv.gz", ".parquet", ".arrow", ".txt", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("rows")


def rows_of(path: pathlib.Path, content: bytes) -> list[dict]:
    path.write_bytes(content)
    return [row for _, row in read_rows(path, "write rows", "write a row")]


def refused(read) -> None:
    """Calls a reader, which may refuse what it is given, in one line and in no other way."""
    try:
        read()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, repr(str(error))


def damaged(draw, content: bytes) -> bytes:
    """The content with a few bytes taken out, put in or changed, or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        removed = draw(st.integers(0, 6))
        content = (
            content[:place]
            + draw(st.sampled_from(TOKENS) | st.binary(max_size=3))
            + content[place + removed :]
        )
    return content


@fuzzed
@given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_json_that_python_wrote_is_read_back(folder, rows, indent, ascii, mark, packed):
    array = json.dumps(rows, indent=indent, ensure_ascii=ascii)
    lines = "\r\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows)
    pack = gzip.compress if packed else bytes
    for text in (array, lines):
        assert rows_of(folder / "own.json", pack((mark + text).encode())) == rows


@fuzzed
@given(
    st.lists(TEXT.filter(lambda name: name.strip()), min_size=1, max_size=4, unique=True),
    st.lists(st.lists(TEXT, min_size=4, max_size=4), max_size=5),
    st.sampled_from([(",", ".csv"), ("\t", ".tsv")]),
)
def test_tables_that_python_wrote_are_read_back(folder, names, values, form):
    separator, ending = form
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    values = [row[: len(names)] for row in values]
    writer.writerows([names, *values])
    path = folder / f"own{ending}"
    path.write_bytes(text.getvalue().encode())
    rows = [row for _, row in read_rows(path, "write rows", None)]
    assert rows == [dict(zip(names, row, strict=True)) for row in values]


@st.composite
def files(draw) -> bytes:
    """Bytes of all kinds: tokens in any order, or a file that was whole until a few of its bytes were damaged."""
    content = draw(HOSTILE)
    if draw(st.booleans()):
        rows = draw(OBJECTS)
        whole = [json.dumps(rows), "\n".join(map(json.dumps, rows)), 'inputs,targets\n"a","b\n""c"\nd,e\n']
        content = damaged(draw, draw(st.sampled_from(whole)).encode())
    return damaged(draw, gzip.compress(content)) if draw(st.integers(0, 5)) == 0 else content


@fuzzed
@given(files(), st.sampled_from(ENDINGS))
def test_any_bytes_are_rows_or_refused(folder, content, ending):
    refused(lambda: rows_of(folder / f"any{ending}", content))


VALUES = JSON | st.floats() | TEXT
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON,
            "content": TEXT | JSON,
            "name": JSON,
        },
    ),
    max_size=4,
)
COLUMNS = [
    "inputs",
    "targets",
    "prompt",
    "completion",
    "instruction",
    "input",
    "weight",
    "reward",
    "rewards",
    "id",
]
COLUMNS += ["candidates", "samples", "tokens"]
ROW = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(COLUMNS, VALUES)
    | {"messages": MESSAGES | JSON, "inputs": TEXT, "targets": TEXT | VALUES},
)


@fuzzed
@given(st.lists(ROW, min_size=1, max_size=3), st.booleans())
def test_rows_of_any_values_are_examples_or_refused(folder, hf_chat, rows, chat):
    """As demonstrations, as prompts and as answers to score; what is read has a token and a finite weight."""
    path = folder / "values.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    lengths = {"inputs": 16, "targets": 16}
    vocabulary = str(hf_chat["plain"]) if chat else None
    task = data.get_task(data=str(path), vocabulary_path=vocabulary)

    def demonstrations():
        (part,) = task.tasks
        for where, row in part.rows("train", UnreadKeys(READ)):
            example = part.encode(where, row)
            assert len(example.targets) and 0 <= example.features.get("weight", 1.0) < np.inf

    refused(demonstrations)
    refused(lambda: list(data.PairFile(str(path), task, lengths)))
    refused(lambda: list(data.PromptFile(str(path), task, lengths).batches(2)))

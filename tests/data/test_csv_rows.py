"""CSV against Python's own module as the writer, and each mistake in one line."""

import csv

import pytest

from lmirl_jax import data
from lmirl_jax.data.formats import read_rows
from lmirl_jax.types import UserError

TEXTS = ["plain", 'a "quoted" word', "two\nlines", "a, b; c\td", "", " spaces ", "é漢", "x" * 200_000]


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("csv", ";"), ("csv", "\t"), ("tsv", "\t")])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_pythons_module_writes_is_read(tmp_path, ending, delimiter, quoting):
    path = tmp_path / f"table.{ending}"
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
        writer.writerows([["inputs", "targets"], *([text, text[::-1]] for text in TEXTS)])
    found = list(read_rows(path, "", ""))
    assert [row for _, row in found] == [{"inputs": text, "targets": text[::-1]} for text in TEXTS]
    # The third row holds the ends of lines, so that later ones begin further down.
    assert [where.rpartition(" ")[2] for where, _ in found[:4]] == ["2", "3", "4", "7"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"t\.csv, line 3: 1 values for 2 columns; quote a value"),
        ('a,b\n"x\ny",2\n1,2,3\n', r"t\.csv, line 4: 3 values for 2 columns"),
        ("a,b,a\n1,2,3\n", r"t\.csv, line 1: the column 'a' is there twice"),
        ('a,b\n1,"2\n3,4\n', r"t\.csv, line 2: not CSV \(unexpected end of data\)"),
        ('a,b\n1,"2"x\n', r"t\.csv, line 2: not CSV \("),
        ("", r"t\.csv is empty: write rows"),
        ("a,b\n", r"t\.csv is empty: write rows"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        list(read_rows(path, "", "write rows"))
    assert "\n" not in str(raised.value)


def test_the_name_of_a_table_with_two_separators_is_part_of_its_identity(tmp_path):
    prints = set()
    for name, inputs in (("t.csv", "a\tb"), ("t.tsv", "a")):
        (tmp_path / name).write_text("inputs,targets\tx\na\tb,c\n")
        prints.add(data.get_task(data=str(tmp_path / name)).tasks[0].fingerprint("train", 1))
        first = next(iter(read_rows(tmp_path / name, "", "")))[1]
        assert next(iter(first.values())) == inputs
    assert len(prints) == 2


def test_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("inputs,targets\na,é\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"t\.csv, after line .: not UTF-8"):
        list(read_rows(path, "", ""))

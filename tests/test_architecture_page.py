"""The tables of docs/architecture.md for rows that exist are what `lmirl_jax.rows` makes."""

import re

import numpy as np
import pytest

from lmirl_jax.data.packing import Packer
from lmirl_jax.models.prompted_rows import lay_out
from lmirl_jax.rows import example_row

LENGTHS = {"inputs": 4, "targets": 6}
SETTINGS = {"lengths": LENGTHS, "discount": 0.9, "eos_ids": (1,)}


def table(repository, name: str) -> dict[str, list[float]]:
    """The rows of the table whose header begins with a name; empty cells are left out."""
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    start = page.index(f"| {name} |")
    lines = page[start:].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {name: [float(value) for value in values if value] for name, *values in cells}


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("one example", tokens(21, 22, 23, 1)),
        ("truncated", tokens(21, 22, 23, 24, 25, 26, 27, 1)),
    ],
)
def test_one_example_a_row(repository, name, targets):
    row = example_row(tokens(11, 12, 1), targets, **SETTINGS)
    for array, values in table(repository, name).items():
        np.testing.assert_array_equal(getattr(row, array), np.float32(values), err_msg=array)


def test_packed_examples(repository):
    packer = Packer(1, **SETTINGS)
    packer.add(tokens(11, 1), tokens(21, 22, 1))
    packer.add(tokens(12, 1), tokens(23, 1))
    batch = packer.batch()
    for array, values in table(repository, "packed").items():
        np.testing.assert_array_equal(getattr(batch, array)[0], np.float32(values), err_msg=array)


def test_what_a_decoder_only_model_reads(repository):
    packer = Packer(1, **SETTINGS)
    packer.add(tokens(11, 1), tokens(21, 22, 1))
    packer.add(tokens(12, 1), tokens(23, 1))
    read = lay_out(packer.batch(), start_id=0)
    for array, values in table(repository, "read").items():
        np.testing.assert_array_equal(getattr(read, array)[0], np.float32(values), err_msg=array)


def is_consistent(rows: dict[str, list[float]]) -> bool:
    """What holds for every row: rewards only within answers, and a discount of 0 where an answer ends."""
    weights, discounts, td_weights, ids = (
        np.array(rows[name]) for name in ("weights", "discounts", "td_weights", "tokens")
    )
    lasts = (weights > 0) & ~np.append(weights[1:] > 0, False)
    return bool(
        ((discounts == 0) == ((weights == 0) | (ids == 1) | lasts)).all()
        and (td_weights <= (weights > 0)).all()
        and (td_weights[ids == 1] == weights[ids == 1]).all()
    )


@pytest.mark.parametrize("name", ["one example", "truncated", "packed", "chat", "chosen", "rejected"])
def test_every_table_follows_the_rules(repository, name):
    rows = table(repository, name)
    length = len(rows["tokens"])
    assert all(len(values) == length for array, values in rows.items() if not array.startswith("prompt"))
    assert is_consistent(rows)


def test_the_page_names_every_array(repository):
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", page))
    row = example_row(tokens(11, 1), tokens(21, 1), **SETTINGS)
    assert set(vars(row)) <= named

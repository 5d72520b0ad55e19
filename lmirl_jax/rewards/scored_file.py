"""The file that `lmirl score` writes, line by line: JSONL, or Parquet by its name."""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from lmirl_jax import files
from lmirl_jax.data.arrow_rows import ROWS
from lmirl_jax.data.formats import read_rows
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import UserError

# The values of the columns that a row of Parquet may lack.
_NULLS = {"reference": None, "id": None, "reference_log_prob": None, "centred_return": None, "metrics": {}}


def read_scored(path: epath.PathLike, name: str = "SCORED") -> Iterator[ScoredAnswer]:
    """The scored answers of a file in order, one in memory at a time.

    Args:
        path: a file of any format in `data.formats`.
        name: the setting that gave the path, for errors.

    Raises:
        UserError: there is no such file, it is empty, or `lmirl score` did not write one of its lines, which the error names.
    """
    file = files.absolute_path(path)
    must = f"{name} must be what lmirl score wrote"
    if file.is_dir():
        raise UserError(f"{path} is a folder: {must}; name a file in it")
    if not file.is_file():
        raise UserError(f"no file at {path}: {must}")
    for where, row in read_rows(file, "name a file that lmirl score wrote", must):
        _decode_columns(row, where)
        yield ScoredAnswer.from_row(_NULLS | row, where)


def _decode_columns(row: dict[str, Any], where: str) -> None:
    """Gives the columns that Parquet holds in forms of its own the form of a line of JSON."""
    try:
        # Parquet returns a map as a list of pairs.
        if isinstance(row.get("metrics"), list):
            row["metrics"] = dict(row["metrics"])
        # Parquet has messages as JSON, since each may have keys of its own.
        if isinstance(row.get("messages"), str):
            row["messages"] = json.loads(row["messages"])
    except (TypeError, ValueError, RecursionError):
        raise UserError(
            f"{where}: metrics or messages is damaged, so this is no line of lmirl score: name a file that it wrote"
        ) from None


def to_parquet(lines: os.PathLike[str], path: os.PathLike[str]) -> None:
    """Writes the lines of a JSONL file as Parquet, in groups of rows, with a column for each key.

    `metrics` are a map, and `messages`, where any line has them, are JSON.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(lines, encoding="utf-8") as file:
        with_messages = any("messages" in json.loads(line) for line in file if '"messages"' in line)
    schema = _schema(pa, with_messages)
    with open(lines, encoding="utf-8") as file, pq.ParquetWriter(os.fspath(path), schema) as writer:
        while group := [json.loads(line) for line in itertools.islice(file, ROWS)]:
            rows = [_to_columns(row) for row in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _to_columns(row: dict[str, Any]) -> dict[str, Any]:
    columns = row | {"metrics": list(row["metrics"].items())}
    if "messages" in row:
        columns["messages"] = json.dumps(row["messages"], ensure_ascii=False)
    return columns


def _schema(pa: Any, with_messages: bool) -> Any:
    texts = dict.fromkeys(("inputs", "targets", "reference", "id"), pa.string())
    integers = dict.fromkeys(("example", "candidate"), pa.int64())
    by_token = dict.fromkeys(
        ("q", "v", "reward", "log_prob", "entropy", "reference_log_prob"), pa.list_(pa.float64())
    )
    numbers = ("return", "normalised_return", "centred_return", "v_0", "log_likelihood")
    fields = {
        **integers,
        **texts,
        "truncated": pa.bool_(),
        "tokens": pa.list_(pa.int32()),
        "pieces": pa.list_(pa.string()),
        "offsets": pa.list_(pa.list_(pa.int32())),
        **by_token,
        **dict.fromkeys(numbers, pa.float64()),
        "metrics": pa.map_(pa.string(), pa.float64()),
        **({"messages": pa.string()} if with_messages else {}),
    }
    return pa.schema(list(fields.items()))

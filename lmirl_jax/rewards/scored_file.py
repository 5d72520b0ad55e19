"""The file that `lmirl score` writes, line by line: JSONL, or Parquet by its name."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from lmirl_jax import files
from lmirl_jax.rewards.scored import Scored
from lmirl_jax.types import UserError

PARQUET = ".parquet"
ROWS = 1024  # Of a Parquet file in memory at a time.


def read_scored(path: epath.PathLike, name: str = "SCORED") -> Iterator[Scored]:
    """The scored answers of a file in order, one in memory at a time.

    Args:
        path: of JSONL, or of Parquet where it ends in `.parquet`.
        name: of the setting that gave the path, for errors.

    Raises:
        UserError: no such file, nothing in it, or a line that `lmirl score` did not write; it names the line.
    """
    file = files.absolute(path)
    if not file.is_file():
        raise UserError(f"no file at {path}: {name} must be what lmirl score wrote")
    empty = True
    for where, row in _parquet(file) if file.suffix == PARQUET else _jsonl(file):
        empty = False
        yield Scored.from_row(row, where)
    if empty:
        raise UserError(f"{path} is empty: {name} must be what lmirl score wrote")


def _jsonl(file: epath.Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    number = 0
    try:
        with file.open("r", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{file}, line {number}", _object(line, f"{file}, line {number}")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}, after line {number}: not UTF-8 ({error.reason})") from error


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); name a file that lmirl score wrote") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: not a JSON object; name a file that lmirl score wrote")
    return row


def _parquet(file: epath.Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    count = 0
    try:
        with file.open("rb") as opened:
            for batch in parquet.ParquetFile(opened).iter_batches(ROWS):
                for row in batch.to_pylist():
                    count += 1
                    # A map comes as pairs.
                    yield f"{file}, row {count}", row | {"metrics": dict(row.get("metrics") or ())}
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}, after row {count}: not Parquet ({reason}); name a file that lmirl score wrote"
        ) from error


def to_parquet(lines: os.PathLike[str], path: os.PathLike[str]) -> None:
    """Writes the lines of a JSONL file as Parquet: a column a key, `metrics` as a map; never whole in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa)
    with open(lines, encoding="utf-8") as file, pq.ParquetWriter(os.fspath(path), schema) as writer:
        while group := [json.loads(line) for line in itertools.islice(file, ROWS)]:
            rows = [row | {"metrics": list(row["metrics"].items())} for row in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _schema(pa: Any) -> Any:
    texts = dict.fromkeys(("inputs", "targets", "reference", "id"), pa.string())
    whole = dict.fromkeys(("example", "candidate"), pa.int64())
    by_token = dict.fromkeys(
        ("q", "v", "reward", "log_prob", "entropy", "reference_log_prob"), pa.list_(pa.float64())
    )
    numbers = ("return", "normalised_return", "centred_return", "v_0", "log_likelihood")
    fields = {
        **whole,
        **texts,
        "truncated": pa.bool_(),
        "tokens": pa.list_(pa.int32()),
        "pieces": pa.list_(pa.string()),
        "offsets": pa.list_(pa.list_(pa.int32())),
        **by_token,
        **dict.fromkeys(numbers, pa.float64()),
        "metrics": pa.map_(pa.string(), pa.float64()),
    }
    return pa.schema(list(fields.items()))

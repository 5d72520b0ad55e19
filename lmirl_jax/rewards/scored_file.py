"""Files of scored answers: the lines of `lmirl score`, and the same as Parquet."""

import itertools
import json
import os
from typing import Any

GROUP = 1000  # Rows of Parquet at a time.


def to_parquet(lines: os.PathLike[str], path: os.PathLike[str]) -> None:
    """Writes the lines of a JSONL file as Parquet: a column a key, `metrics` as a map; never whole in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(pa)
    with open(lines, encoding="utf-8") as file, pq.ParquetWriter(os.fspath(path), schema) as writer:
        while group := [json.loads(line) for line in itertools.islice(file, GROUP)]:
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

"""The list of `lmirl tasks`. That of the bundled tasks needs no library: their files are read, not imported."""

import ast
import pathlib
from collections.abc import Mapping

from lmirl_jax import tasks

# The splits, the source and a description of each task, by its name.
Descriptions = Mapping[str, tuple[tuple[str, ...], str, str]]


def bundled_tasks() -> dict[str, tuple[tuple[str, ...], str, str]]:
    """What the files of `tasks/` say of their tasks in the constant TASKS, sorted by name."""
    found = {}
    for folder in tasks.__path__:
        for path in sorted(pathlib.Path(folder).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TASKS":
                    found |= ast.literal_eval(node.value)
    return dict(sorted(found.items()))


def table(descriptions: Descriptions) -> str:
    """A table with a row for each task."""
    rows = [("name", "splits", "source", "what it is")]
    rows += [
        (name, ", ".join(splits) or "of the data set", source, about)
        for name, (splits, source, about) in descriptions.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for *cells, about in rows:
        padded = [f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([*padded, about]).rstrip())
    return "\n".join(lines)

"""docs/rewards.md names every key of a line of `lmirl score` and every setting of gin/runs/score.gin, and nothing else."""

import dataclasses
import re

from lmirl_jax.rewards import ScoredAnswer


def table(repository, header: str) -> list[str]:
    """The first column of the table with this header: all that stands in it as code."""
    page = (repository / "docs" / "rewards.md").read_text(encoding="utf-8")
    rows = page[page.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_keys(repository):
    fields = {"return" if field.name == "total" else field.name for field in dataclasses.fields(ScoredAnswer)}
    # Of several references a line has the first.
    assert sorted(table(repository, "| key |")) == sorted(fields - {"references"})


def test_settings(repository):
    macros = re.findall(r"^([A-Z_]+) =", (repository / "gin/runs/score.gin").read_text(), re.MULTILINE)
    told = {"CHECKPOINT_PATH", "DATA", "OUTPUT_PATH"}  # In the text above the table.
    own = {"DISCOUNT", "TASK_FEATURE_LENGTHS"}  # Of the run's own configuration.
    assert set(table(repository, "| macro |")) == set(macros) - told | own

"""The section of the report on rewards that compares scores of steps with a checker of steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.report import Report

READING = (
    "A checker of steps knows where each answer went wrong first. Found: the share of answers with a wrong step whose lowest "
    "score is that step's, as a mean over prompts; by chance, what a score without meaning finds. AUC: of a right step and a "
    "first wrong one, of any of these answers, how often the right one scores higher; 50 says nothing. The scores of a step are "
    "sums over its tokens. In brackets: 95% intervals over prompts."
)


def add_steps(report: Report, findings: Mapping[str, Any]) -> None:
    """Adds how often each score of steps finds the first wrong step; nothing where no checker was given."""
    if findings.get("steps") is None:
        return
    if not findings["steps"]:
        report.section(
            "Steps", "No answer of two or more steps has a wrong one, so that nothing can be found."
        )
        return
    report.section("Steps", READING)
    header = ["run", "scores", "prompts", "answers", "found", "by chance", "AUC"]
    report.table(header, [_entries(row) for row in findings["steps"]])


def describe_steps(findings: Mapping[str, Any]) -> str:
    """A sentence on the score of each run that finds first wrong steps most often; empty where there is none."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in findings.get("steps") or ():
        if row["run"] not in best or row["found"] > best[row["run"]]["found"]:
            best[row["run"]] = row
    parts = [
        f"{run} by `{row['scores']}` {percent(row['found'], row['found_interval'])} (over {row['answers']} answers to "
        f"{row['prompts']} prompts; by chance {percent(row['by_chance'])})"
        for run, row in best.items()
    ]
    return (
        f"The lowest score of a step is that of the first wrong one in so many cases, by the best of each run's scores: "
        f"{'; '.join(parts)}."
        if parts
        else ""
    )


def percent(value: float | None, interval: Sequence[float | None] = (None, None)) -> str:
    """`61% [58, 64]`."""
    if value is None:
        return "-"
    low, high = interval
    spread = "" if low is None or high is None else f" [{100 * low:.0f}, {100 * high:.0f}]"
    return f"{100 * value:.0f}%{spread}"


def _entries(row: Mapping[str, Any]) -> list[str]:
    return [
        row["run"],
        row["scores"],
        f"{row['prompts']}",
        f"{row['answers']}",
        percent(row["found"], row["found_interval"]),
        percent(row["by_chance"]),
        percent(row["auc"], row["auc_interval"]),
    ]

"""The section of the report on rewards that shows the effect of corrupting right answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.report import Report
from lmirl_jax.reports.scored_rows import note_of, scored_row, shorten
from lmirl_jax.rewards.corruption_effects import CorruptionEffect

READING = (
    "Answers that are right were damaged on purpose, so that what is wrong, and where, is known. Return drops: how often the "
    "damaged answer has a lower return than the original; an answer with fewer tokens sums over fewer, so its return may rise "
    "for that alone, while the return a token may not. Reward drops there, log π drops there: how often they are lower at the "
    "damaged place than at the same place of the original. Found: how often the largest drop of the reward, of all tokens, lies "
    "at that place. Answers: how many had a place for the damage, of how many; there: how many have rewards at both places. In "
    "brackets: 95% intervals (Wilson's) over answers."
)
SEVERAL = " Several seeds reward the same damaged answers: shares are over all seeds, intervals by answer."
# The places of the examples that the page shows for each kind, with their description.
MANY = ((0, "the return falls most"), (-1, "the return falls least"))
FEW = ((None, "the middle one by its fall"),)
NONE = "Does not apply: no answers were corrupted."


def add_corruptions(
    report: Report,
    findings: Mapping[str, Any],
    corruptions: Mapping[str, Sequence[CorruptionEffect]],
    many: bool,
) -> None:
    """Adds how often each corruption lowers the rewards, and examples of each kind as heat maps.

    Args:
        report: the page to add to.
        findings: the result of `trust_findings`.
        corruptions: the effects for each run, with examples in the order of the fall of the return.
        many: whether the first run has two examples of each kind; the other runs have one.
    """
    runs = [run for run in findings["runs"] if run["corruptions"]]
    if not runs:
        report.section("Corrupted answers", NONE)
        return
    report.section("Corrupted answers", READING + SEVERAL * any(run["seeds"] > 1 for run in runs))
    kinds = list(dict.fromkeys(row["kind"] for run in runs for row in run["corruptions"]))
    rows = []
    for kind in kinds:
        kind_rows = [(run["run"], row) for run in runs for row in run["corruptions"] if row["kind"] == kind]
        rows += [["" if i else kind, label, *_entries(row)] for i, (label, row) in enumerate(kind_rows)]
    header = [
        *("corruption", "run", "answers", "return drops", "a token"),
        *("there", "reward drops there", "log π drops there", "found"),
    ]
    report.table(header, rows)
    absent = [
        kind
        for kind in kinds
        if not any(r["count"] for run in runs for r in run["corruptions"] if r["kind"] == kind)
    ]
    if absent:
        report.text(
            f"Found no place in any of the answers, so that nothing is known of them: {', '.join(absent)}."
        )
    for run in runs:
        for effect in corruptions.get(run["run"], ()):
            _add_examples(report, run["run"], effect, MANY if many and run is runs[0] else FEW)


def _entries(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['answers']}" if row["of"] is None else f"{row['answers']} of {row['of']}",
        _share(row["return_drops"], row["return_drops_interval"]),
        _share(row["normalised_return_drops"]),
        f"{row['sites']}",
        _share(row["site_drops"], row["site_drops_interval"]),
        _share(row["site_log_prob_drops"]),
        _share(row["located"], row["located_interval"]),
    ]


def _share(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "-"
    spread = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"{100 * value:.0f}%{spread}"


def _add_examples(
    report: Report, run: str, effect: CorruptionEffect, places: Sequence[tuple[int | None, str]]
) -> None:
    examples = {}
    for place, words in places:
        if effect.examples:
            index = len(effect.examples) // 2 if place is None else place % len(effect.examples)
            examples.setdefault(index, words)
    for index, words in examples.items():
        original, corrupted, span = effect.examples[index]
        report.subheading(f"{run}: {effect.kind}, {words}")
        report.text(f"Prompt: {shorten(original.inputs)}")
        report.heat_map([
            scored_row(original, "original", note=note_of(original)),
            scored_row(corrupted, "damaged", note=note_of(corrupted), marked=span),
        ])  # fmt: skip

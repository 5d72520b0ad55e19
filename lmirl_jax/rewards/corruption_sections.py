"""The part of the report on rewards that tells what corrupting right answers does to them."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.rewards.corruption_effects import CorruptionEffect
from lmirl_jax.rewards.report import Report
from lmirl_jax.rewards.scored_rows import note_of, scored_row

READING = (
    "Answers that are right were corrupted on purpose, so that what is wrong, and where, is known. Return drops: how often the "
    "corrupted answer has a lower return than the original. Reward drops there: how often the reward at the corrupted place "
    "is lower than at the same place of the original. Found: how often the token with the largest drop lies at that place. In "
    "brackets: 95% intervals."
)
NONE = "Does not apply: no answers were corrupted."


def add_corruptions(
    report: Report,
    findings: Mapping[str, Any],
    corruptions: Mapping[str, Sequence[CorruptionEffect]],
    examples: int,
) -> None:
    """Adds how often each corruption lowers the rewards, and examples of each kind as heat maps.

    Args:
        report: it is added to.
        findings: of `trust_findings`.
        corruptions: for each run the effects, with their examples.
        examples: how many of each kind are shown, two at most; one of every run but the first.
    """
    runs = [run for run in findings["runs"] if run["corruptions"]]
    if not runs:
        report.section("Corrupted answers", NONE)
        return
    report.section("Corrupted answers", READING)
    kinds = list(dict.fromkeys(row["kind"] for run in runs for row in run["corruptions"]))
    rows = []
    for kind in kinds:
        for run in runs:
            for row in run["corruptions"]:
                if row["kind"] == kind:
                    rows.append([kind if run is runs[0] else "", run["run"], *_entries(row)])
    header = ["corruption", "run", "answers", "return drops", "reward drops there", "found"]
    report.table(header, rows)
    for run in runs:
        effects = [effect for effect in corruptions.get(run["run"], ()) if effect.examples]
        if effects:
            _add_examples(report, run["run"], effects, min(examples, 2) if run is runs[0] else 1)


def _entries(row: Mapping[str, Any]) -> list[str]:
    site = row["site_drops"]
    return [
        f"{row['count']}",
        _share(row["return_drops"], row["return_drops_interval"]),
        "-" if site is None else _share(site, row["site_drops_interval"]),
        "-" if row["located"] is None else f"{row['located']:.0%}",
    ]


def _share(value: float, interval: Sequence[float] | None) -> str:
    if interval is None:
        return f"{100 * value:.0f}%"
    return f"{100 * value:.0f}% [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def _add_examples(report: Report, run: str, effects: Sequence[CorruptionEffect], count: int) -> None:
    for effect in effects:
        for original, corrupted, span in effect.examples[:count]:
            report.subheading(f"{run}: {effect.kind}")
            report.text(f"Prompt: {original.inputs}")
            report.heat_map([
                scored_row(original, "original", note=note_of(original)),
                scored_row(corrupted, "corrupted", note=note_of(corrupted), marked=span),
            ])  # fmt: skip

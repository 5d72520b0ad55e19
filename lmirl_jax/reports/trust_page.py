"""The page of `lmirl report`: whether rewards can be trusted."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.answer_sections import CANDIDATES, add_candidates, add_disagreements
from lmirl_jax.reports.correlation_sections import add_correlations, add_lengths, add_split, add_tests
from lmirl_jax.reports.corruption_sections import add_corruptions
from lmirl_jax.reports.report import Report
from lmirl_jax.reports.scored_rows import MOST_TOKENS
from lmirl_jax.reports.step_sections import add_steps
from lmirl_jax.reports.trust_verdict import trust_verdict
from lmirl_jax.rewards.corruption_effects import CorruptionEffect
from lmirl_jax.rewards.step_findings import StepFinding
from lmirl_jax.rewards.trust_findings import Runs, trust_findings

# The most examples of each kind where there is one run; there are fewer where the page would grow too large.
EXAMPLES = 3
# The most examples of each kind for each run where there are several runs.
EXAMPLES_OF_SEVERAL = 2
# The most tokens in heat maps; a token takes about 150 bytes.
MOST_HEAT_MAP_TOKENS = 20_000


def trust_report(
    path: str | os.PathLike[str],
    *,
    scored: Runs,
    corruptions: Mapping[str, Sequence[CorruptionEffect]] | None = None,
    steps: Sequence[StepFinding] | None = None,
    settings: Mapping[str, str | Sequence[str]],
    metric: str | None = None,
    title: str = "Can these rewards be trusted?",
    lead: str = "",
) -> Mapping[str, Any]:
    """Writes the report on the rewards of one or more runs.

    Args:
        path: the path of the HTML file.
        scored: the scored answers of each seed of each run. Heat maps show answers of the first seed.
        corruptions: the effects of corruptions for each run.
        steps: how well scores of steps find first wrong ones; None where no checker of steps was asked.
        settings: the settings of the run; several values under one name are lines of code.
        metric: the metric of the verdict and the examples; None for the first one.
        title: the title of the page.
        lead: a sentence below the title.

    Returns:
        The findings on the page.

    Raises:
        UserError: no answers, an unknown metric, or a place that cannot be written.
    """
    corruptions = corruptions or {}
    found = None if steps is None else [dataclasses.asdict(each) for each in steps]
    findings = trust_findings(scored, corruptions, metric=metric) | {"steps": found}
    first_seeds = {run: seeds[0] for run, seeds in scored.items()}
    examples = _examples(scored)
    report = Report(title, lead)
    report.section("Verdict", *trust_verdict(findings), callout=True)
    add_correlations(report, findings)
    add_split(report, findings)
    add_lengths(report, findings)
    add_corruptions(report, findings, corruptions, many=examples > 1)
    add_steps(report, findings)
    add_candidates(report, first_seeds, findings["metric"], examples)
    add_disagreements(report, first_seeds, findings["metric"], examples)
    add_tests(report, findings)
    report.section("What was scored")
    header = ["run", "seeds", "prompts", "answers", "answers a prompt", "truncated"]
    report.table(header, [_counts(run) for run in findings["runs"]])
    report.facts(settings)
    report.write(path)
    return findings


def _examples(scored: Runs) -> int:
    """The number of examples of each kind that keeps the page within a few megabytes."""
    lengths = [len(answer.tokens) for seeds in scored.values() for answer in seeds[0]]
    typical = min(sum(lengths) / max(len(lengths), 1), MOST_TOKENS)
    # The rows of heat maps for one example of each kind, with corruptions.
    rows = len(scored) * (CANDIDATES + 6) + 20
    most = EXAMPLES if len(scored) == 1 else EXAMPLES_OF_SEVERAL
    return max(1, min(most, int(MOST_HEAT_MAP_TOKENS / max(1.0, typical * rows))))


def _counts(run: Mapping[str, Any]) -> list[str]:
    low, high = run["answers_per_prompt"]
    per_prompt = f"{low}" if low == high else f"{low} to {high}"
    numbers = [f"{run[name]}" for name in ("seeds", "prompts", "answers")]
    return [run["run"], *numbers, per_prompt, f"{run['truncated']}"]

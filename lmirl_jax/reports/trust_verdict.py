"""Writes the verdict of a report on rewards: its numbers in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.scored_rows import with_sign
from lmirl_jax.reports.step_sections import describe_steps
from lmirl_jax.statistics.evidence import FEWEST_CASES, LEVEL, conclusion
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN

NUMBERS = (
    "Numbers are Spearman's correlations of return and `{metric}`, first over all answers, then within one prompt (the mean over "
    "prompts of each one's own); in brackets their 95% intervals. A relation is said to show where the interval excludes 0 and a "
    "permutation test of the same correlation has p of at most {level:g}."
)
DIFFERENT_ANSWERS = "Not all of this is the reward's doing: the runs scored different answers."
SAME_ANSWERS = (
    "All scored the same answers; a run that wrote them is at a disadvantage, for what it got wrong is what it held to be "
    "likely."
)
SAME_ORDER = (
    "Within one prompt the return of {runs} ranks complete answers just as log-likelihood does: it is their log-likelihood plus "
    "the prompt's value `v_0` (gamma 1, no correction). What such a reward adds to log-likelihood shows between prompts and "
    "token by token; another ranking within a prompt takes gamma below 1, length normalisation or another checkpoint's reward."
)
WITHOUT_METRIC = (
    "The answers have no metric, so nothing says whether the rewards are right: score answers together with their references, "
    "or name a task that measures them."
)


def trust_verdict(findings: Mapping[str, Any]) -> list[str]:
    """Paragraphs on the correlation of each run's return with the metric, its causes, length, and corruptions.

    Args:
        findings: the result of `trust_findings`.
    """
    metric, runs = findings["metric"], findings["runs"]
    if metric is None:
        paragraphs = [WITHOUT_METRIC, _lengths(runs)]
    else:
        paragraphs = [*_claims(runs, metric), _differences(runs, metric)]
        rows = [find_row(run, "return", metric, POOLED) for run in runs]
        if any(row is not None and row["value"] is not None for row in rows):
            paragraphs.append(NUMBERS.format(metric=metric, level=LEVEL))
        paragraphs += [_parts(runs, metric), _lengths(runs), *(_length_alone(run, metric) for run in runs)]
    same = [run["run"] for run in runs if run["telescopes"]]
    if same:
        paragraphs.append(SAME_ORDER.format(runs=_enumeration(same)))
    return [text for text in [*paragraphs, _corruptions(runs), describe_steps(findings)] if text]


def find_row(run: Mapping[str, Any], measure: str, metric: str, scope: str, kind: str = "spearman") -> Any:
    """The row of a correlation of a run, or None where there is none."""
    criteria = {"measure": measure, "metric": metric, "scope": scope, "kind": kind}
    rows = (row for row in run["correlations"] if all(row[name] == value for name, value in criteria.items()))
    return next(rows, None)


def _claims(runs: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """One paragraph for each finding, with the runs that it holds for."""
    runs_by_claim: dict[str, list[str]] = {}
    for run in runs:
        pooled, within = (find_row(run, "return", metric, scope) for scope in (POOLED, WITHIN))
        if pooled is None:
            runs_by_claim.setdefault(f"Without `{metric}`", []).append(run["run"])
        elif pooled["value"] is None:
            reason = f"Nothing can be said, as `{metric}` or the return is the same in all answers"
            runs_by_claim.setdefault(reason, []).append(f"{run['run']} {describe_sample(pooled)}")
        else:
            numbers = f"{run['run']} {describe_correlation(pooled)}; within one prompt {describe_correlation(within)}"
            runs_by_claim.setdefault(_claim(pooled, within, metric), []).append(numbers)
    return [f"{claim}: {'. '.join(numbers)}." for claim, numbers in runs_by_claim.items()]


def _claim(pooled: Mapping[str, Any], within: Mapping[str, Any], metric: str) -> str:
    pooled_says, within_says = (
        conclusion(row["low"], row["high"], row["p_value"]) for row in (pooled, within)
    )
    words = {
        "positive": f"a higher return goes with a higher `{metric}`",
        "none": f"no relation of return and `{metric}` shows",
        "negative": f"a higher return goes with a LOWER `{metric}`",
        "unclear": f"interval and permutation test disagree on return and `{metric}`, so that nothing is concluded",
        "too few": f"there are too few to say whether a higher return goes with a higher `{metric}`",
    }
    if pooled_says == within_says:
        first = words[pooled_says]
        return f"{first[0].upper()}{first[1:]}, over all answers and among those to one prompt"
    return f"Over all answers {words[pooled_says]}, among those to one prompt {words[within_says]}"


def _parts(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The shares of log-likelihood and of the value of the prompt in the correlation of each run."""
    parts = []
    for run in runs:
        metric_shares = run["split"].get(metric, ())
        if not metric_shares or any(
            share["low"] is None for share in metric_shares if share["name"] == "total"
        ):
            # The paragraphs above say that it is undefined or has too little evidence.
            continue
        shares = {share["name"]: share["value"] for share in metric_shares}
        names = [
            name for name in shares if name != "total" and (name != "rest" or abs(shares[name]) >= 0.005)
        ]
        contributions = [
            f"{with_sign(shares[name])} from {'`v_0`' if name == 'v_0' else name}" for name in names
        ]
        sample = describe_sample(find_row(run, "return", metric, POOLED))
        parts.append(
            f"{run['run']} {with_sign(shares['total'])} {sample}, of which {_enumeration(contributions)}"
        )
    return (
        f"What the correlation over all answers is due to, by Pearson's r: {'; '.join(parts)}."
        if parts
        else ""
    )


def _lengths(runs: Sequence[Mapping[str, Any]]) -> str:
    rows = [(run["run"], find_row(run, "return", "tokens", POOLED)) for run in runs]
    parts = [
        f"{name} {describe_correlation(row)}"
        for name, row in rows
        if row is not None and row["value"] is not None
    ]
    return f"Return against the number of tokens, over all answers: {'; '.join(parts)}." if parts else ""


def _length_alone(run: Mapping[str, Any], metric: str) -> str:
    """A warning that a reward may measure only length, where length correlates with the metric as well as the return does."""
    control, pooled, return_length = (
        find_row(run, *pair, POOLED)
        for pair in (("tokens", metric), ("return", metric), ("return", "tokens"))
    )
    if any(row is None or row["low"] is None for row in (control, pooled, return_length)):
        return ""
    if abs(return_length["value"]) <= 0.5 or abs(control["value"]) < abs(pooled["value"]):
        return ""
    return (
        f"{run['run']}: the number of tokens alone goes with `{metric}` as well as the return does "
        f"({describe_correlation(control)}): this reward may measure little but length."
    )


def _differences(runs: Sequence[Mapping[str, Any]], metric: str) -> str:
    parts, other_answers = [], False
    for run in runs:
        rows = [row for row in run["differences"] if row["metric"] == metric and row["value"] is not None]
        if len(rows) == 2:
            with_interval = [row for row in rows if row["low"] is not None]
            texts = [
                format_interval(row) if row in with_interval else f"too few ({too_few(row)})" for row in rows
            ]
            text = (
                f"{texts[0]}, within one prompt {texts[1]}"
                if with_interval
                else f"too few to say ({too_few(rows[0])})"
            )
            if with_interval and all(row["low"] <= 0 <= row["high"] for row in with_interval):
                text += " (no difference shows)"
            parts.append(f"{run['run']} {text}")
            other_answers |= not rows[0]["same_answers"]
    if not parts:
        return ""
    return f"Higher than {runs[0]['run']} by: {'; '.join(parts)}. {DIFFERENT_ANSWERS if other_answers else SAME_ANSWERS}"


def _corruptions(runs: Sequence[Mapping[str, Any]]) -> str:
    shares: dict[str, dict[str, str]] = {}
    for run in runs:
        for row in run["corruptions"]:
            shares.setdefault(row["kind"], {})[run["run"]] = _corruption(row)
    parts = []
    for kind, by_run in shares.items():
        alike = len(set(by_run.values())) == 1
        text = (
            next(iter(by_run.values())) if alike else ", ".join(f"{s} ({run})" for run, s in by_run.items())
        )
        parts.append(f"{kind} {text}")
    return (
        f"Right answers, damaged on purpose, have a lower return in so many cases: {'; '.join(parts)}."
        if parts
        else ""
    )


def _corruption(row: Mapping[str, Any]) -> str:
    """The share of falling returns with its interval and counts, or the reason why there is none."""
    of = f" of {row['of']}" if row["of"] is not None else ""
    if not row["count"]:
        return f"found no place in any{of} answers" if of else "found no place"
    damaged = f"{row['answers']}{of} answers"
    if row["answers"] < FEWEST_CASES:
        return f"too few to say (found a place in {damaged}, {FEWEST_CASES} are needed)"
    ends = row["return_drops_interval"]
    spread = f" [{100 * ends[0]:.0f}, {100 * ends[1]:.0f}]" if ends else ""
    return f"{100 * row['return_drops']:.0f}%{spread} (over {damaged})"


def describe_correlation(row: Mapping[str, Any]) -> str:
    """A correlation with its interval and its numbers of answers and prompts, or the reason why it has no interval."""
    if row["low"] is None:
        return f"too few ({explain_gap(row)})"
    return f"{format_interval(row)} {describe_sample(row)}"


def explain_gap(row: Mapping[str, Any]) -> str:
    """The reason why a correlation has no interval."""
    return row["too_few"] or f"undefined in {row['undefined_draws']} of {row['draws']} draws of the bootstrap"


def too_few(row: Mapping[str, Any]) -> str:
    """The reason why a difference has no interval."""
    return row["too_few"] or "undefined in too many draws of the bootstrap"


def describe_sample(row: Mapping[str, Any]) -> str:
    """`over 240 answers to 30 of 100 prompts`."""
    prompts = (
        f"{row['prompts']} of {row['prompts'] + row['left_out']}" if row["left_out"] else f"{row['prompts']}"
    )
    seeds = f", each of {row['seeds']} seeds counted apart" if row["seeds"] > 1 else ""
    return f"over {row['answers']} answers to {prompts} prompts{seeds}"


def format_interval(row: Mapping[str, Any]) -> str:
    """`+0.43 [+0.30, +0.55]`."""
    return f"{with_sign(row['value'])} [{with_sign(row['low'])}, {with_sign(row['high'])}]"


def _enumeration(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

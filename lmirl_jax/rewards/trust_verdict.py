"""What the numbers of a report on rewards say, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.evaluation.rank_correlation import POOLED, WITHIN

SAME_ORDER = (
    "Within one prompt the return of {runs} ranks complete answers just as log-likelihood does: it is their log-likelihood plus "
    "the prompt's value v_0 (gamma 1, no correction). What such a reward adds to log-likelihood shows between prompts and token "
    "by token; another ranking within a prompt takes gamma below 1, length normalisation or another checkpoint's reward."
)
WITHOUT_METRIC = (
    "The answers have no metric, so nothing says whether the rewards are right: score answers together with their references, "
    "or name a task that measures them."
)


def trust_verdict(findings: Mapping[str, Any]) -> list[str]:
    """Paragraphs: whether each run's return goes with the metric, what the part of v_0 is, length, and corruptions.

    Args:
        findings: of `trust_findings`.
    """
    metric, runs = findings["metric"], findings["runs"]
    if metric is None:
        paragraphs = [WITHOUT_METRIC]
    else:
        paragraphs = [_run(run, metric) for run in runs]
        paragraphs += filter(None, (_differences(run, metric) for run in runs))
    same = [run["run"] for run in runs if run["telescopes"]]
    if same:
        paragraphs.append(SAME_ORDER.format(runs=_listed(same)))
    return paragraphs + [text for run in runs for text in _corruptions(run)]


def find(run: Mapping[str, Any], measure: str, metric: str, scope: str, kind: str = "spearman") -> Any:
    """The row of a run's correlation, or None."""
    wanted = {"measure": measure, "metric": metric, "scope": scope, "kind": kind}
    rows = (row for row in run["correlations"] if all(row[name] == value for name, value in wanted.items()))
    return next(rows, None)


def _run(run: Mapping[str, Any], metric: str) -> str:
    pooled, within = (find(run, "return", metric, scope) for scope in (POOLED, WITHIN))
    if pooled is None:
        return f"{run['run']}: its answers have no {metric}."
    if pooled["value"] is None:
        return f"{run['run']}: nothing can be correlated with {metric}, for it or the return is the same in all answers."
    finding = (
        f"{run['run']}: {_claim(pooled, within, metric)}. Spearman's correlation of return and {metric} is "
        f"{_number(pooled)} over all answers and {_number(within)} within one prompt."
    )
    return " ".join(filter(None, [finding, _parts(run, metric), _length(run, metric, pooled)]))


def _claim(pooled: Mapping[str, Any], within: Mapping[str, Any], metric: str) -> str:
    signs = [_sign(row) for row in (pooled, within)]
    if signs[0] is None:
        return f"whether a higher return goes with a higher {metric} cannot be said of so few prompts"
    words = {
        1: f"a higher return goes with a higher {metric}",
        -1: f"a higher return goes with a LOWER {metric}",
    }
    if signs[0] == 0:
        first = f"no relation of return and {metric} shows over all answers: the interval holds 0"
    else:
        first = words[signs[0]]
    if signs[1] is None or signs[1] == signs[0]:
        return first
    if signs[1] == 0:
        return f"{first}, but among the answers to one prompt no relation shows: that interval holds 0"
    return f"{first}; among the answers to one prompt {words[signs[1]]}"


def _sign(row: Mapping[str, Any]) -> int | None:
    """Of a correlation whose interval excludes 0; 0 where it holds 0; None without an interval."""
    if row["low"] is None:
        return None
    return (row["low"] > 0) - (row["high"] < 0)


def _parts(run: Mapping[str, Any], metric: str) -> str:
    shares = {share["name"]: share for share in run["split"][metric]}
    if shares["total"]["value"] is None:
        return ""
    rest = f", {_signed(shares['rest']['value'])} from the rest" if "rest" in shares else ""
    first, second = (_signed(shares[name]["value"]) for name in ("log-likelihood", "v_0"))
    return (
        f"Of Pearson's {_signed(shares['total']['value'])} over all answers, {first} comes from log-likelihood and {second} "
        f"from v_0{rest}."
    )


def _length(run: Mapping[str, Any], metric: str, pooled: Mapping[str, Any]) -> str:
    """Says that a reward measures length, where length explains the metric as well as the return does."""
    own, control = find(run, "return", "tokens", POOLED), find(run, "tokens", metric, POOLED)
    if own is None or own["value"] is None:
        return ""
    text = f"With the number of tokens the return correlates at {_number(own)}."
    if (
        abs(own["value"]) > 0.5
        and control["value"] is not None
        and abs(control["value"]) >= abs(pooled["value"])
    ):
        text += f" Length alone goes with {metric} as well as that ({_number(control)}): the reward may measure only length."
    return text


def _differences(run: Mapping[str, Any], metric: str) -> str:
    rows = [row for row in run["differences"] if row["metric"] == metric and row["low"] is not None]
    if not rows:
        return ""
    parts = []
    for row in rows:
        where = "over all answers" if row["scope"] == POOLED else "within one prompt"
        noise = " (the interval holds 0: no difference shows)" if row["low"] <= 0 <= row["high"] else ""
        parts.append(f"{_number(row)} {where}{noise}")
    return f"{run['run']} less {rows[0]['baseline']}, in correlation with {metric}: {' and '.join(parts)}."


def _corruptions(run: Mapping[str, Any]) -> list[str]:
    rows = run["corruptions"]
    if not rows:
        return []
    parts = []
    for row in rows:
        site = (
            f" (the reward at the place in {row['site_drops']:.0%})" if row["site_drops"] is not None else ""
        )
        parts.append(f"{row['kind']} {row['return_drops']:.0%}{site}")
    return [
        f"{run['run']}, answers corrupted on purpose: the return drops in so many cases: {', '.join(parts)}."
    ]


def _number(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "undefined"
    if row["low"] is None:
        return _signed(row["value"])
    return f"{_signed(row['value'])} (95% interval {_signed(row['low'])} to {_signed(row['high'])})"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

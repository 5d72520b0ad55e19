"""The sections of the report on rewards with numbers: correlations, the split of a return, and length."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.reports.report import TOO_FEW, Report
from lmirl_jax.reports.trust_figures import correlation_figure, tenths_figure
from lmirl_jax.reports.trust_verdict import describe_sample, explain_gap, find_row
from lmirl_jax.statistics.evidence import FEWEST_EVENTS, FEWEST_PROMPTS
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN
from lmirl_jax.statistics.resampled_ranks import MOST_PAIRED

MEASURES = ("return", "normalised return", "log-likelihood", "v_0", "tokens")
READING = (
    "Does a higher return mean a better answer? Pooled: over all answers to all prompts, so that it also asks whether returns "
    "can be compared between prompts. Within prompt: the mean over prompts of each prompt's own correlation, which is what "
    "picking the best of several answers needs; prompts in which the metric or the measure is the same in all answers have "
    "none and are left out. `v_0` belongs to the prompt and has none either. `tokens`, the length, is a control: a reward "
    "that is no better than it measures length."
)
NOISE = (
    "In brackets: 95% intervals. Pooled: bootstrap over {over}, the answers to a prompt drawn together, widened for the number "
    "of prompts in which something other than the commonest value is seen; a draw in which the correlation is undefined counts "
    'as beyond both ends. Within prompt: Wilson\'s, of the mean over prompts, by its bootstrap variance. "Too few": fewer '
    "than {prompts} prompts count, or in fewer than {events} of them something other than the commonest value is seen."
)
TESTS = (
    "τ: Kendall's tau-b. p: two-sided permutation test of Spearman's correlation. Within prompt, metrics change places among the "
    "answers to each prompt; pooled, prompts with the same number of answers change places too, each with all its "
    "metrics, for the answers to one prompt are no independent witnesses. 2000 permutations, so that no p is below 0.0005; no "
    "correction for the number of tests. Pooled, τ has no interval with more than {most} answers."
)
PAPER = (
    "For comparison, Table 2 of Wulfmeier et al. (arXiv 2409.01369): Spearman's correlation of the rewards of online IQLearn "
    "with the task's metric, against MLE's: TL;DR, ROUGE-1: .64 against −.05; WMT22, BLEU: .43 against −.05; GSM8K, "
    "accuracy: .17 against −.02. Those are other tasks and models: the table says what to look for, not what to expect here."
)
OTHER_ANSWERS = "The runs scored different answers, so not all of a difference is the reward's doing."
TENTHS = (
    "All answers of a run in ten parts of equal number by return, seeds ranked apart. A reward to be trusted rises from left to "
    "right; the height of a line is how good the answers are, not how good the reward is."
)
SPLIT = (
    "At gamma 1 the return of a complete answer is its log-likelihood plus `v_0`, the value of the prompt before any token. A "
    "covariance is the sum of its parts', so Pearson's correlation of return and metric splits without remainder into what "
    "each part adds. What `v_0` adds is a difference between prompts alone: it ranks no two answers to the same prompt."
)
REST = (
    " The rest is what the return has beyond both: gamma below 1, a correction or shaping, and in a truncated answer the "
    "last token, which has no reward."
)
LENGTH = (
    "Answers of about the same length, all prompts together: within a row length hardly differs, so a correlation there is not "
    'length\'s doing. "Too few": fewer than {prompts} prompts are in the row, or in fewer than {events} of them the return or '
    "the metric differs from its commonest value there."
)


def add_correlations(report: Report, findings: Mapping[str, Any]) -> None:
    """Adds the correlations of every run with every metric: a figure, Spearman's, then Kendall's with p-values."""
    runs, metrics = findings["runs"], findings["metrics"]
    if not metrics:
        report.section(
            "Correlation with the task's metrics", "Does not apply: the answers have no metric in common."
        )
        return
    report.section("Correlation with the task's metrics", READING)
    _add_figures(report, findings)
    resampled_units = "prompts and seeds" if any(run["seeds"] > 1 for run in runs) else "prompts"
    for scope, title in ((POOLED, "Spearman, pooled"), (WITHIN, "Spearman, within prompt")):
        report.subheading(title)
        rows = _rows(runs, metrics, scope, lambda run, *pair: [_value(find_row(run, *pair))])
        report.table(["metric", "measure", *(run["run"] for run in runs)], rows)
        report.text(*_numbers(runs, metrics, scope))
    report.text(NOISE.format(over=resampled_units, prompts=FEWEST_PROMPTS, events=FEWEST_EVENTS), PAPER)
    _add_differences(report, runs, metrics)


def add_tests(report: Report, findings: Mapping[str, Any]) -> None:
    """Adds Kendall's correlations and p-values; nothing without metrics."""
    runs, metrics = findings["runs"], findings["metrics"]
    if not metrics:
        return
    report.section("Kendall's correlations, and p-values", TESTS.format(most=MOST_PAIRED))
    for scope, title in ((POOLED, "Pooled"), (WITHIN, "Within prompt")):
        report.subheading(title)
        header = ["metric", "measure", *(name for _ in runs for name in ("τ", "p"))]
        groups = [("", 2), *((run["run"], 2) for run in runs)]
        report.table(header, _rows(runs, metrics, scope, _kendall), groups=groups)


def add_split(report: Report, findings: Mapping[str, Any]) -> None:
    """Adds the shares of log-likelihood and of the value of the prompt in the correlation of the return."""
    runs = findings["runs"]
    header = "What the correlation is due to"
    if not findings["metrics"]:
        report.section(header, "Does not apply: the answers have no metric in common.")
        return
    names = ["total", "log-likelihood", "v_0"]
    rest = any(
        share["name"] == "rest"
        for run in runs
        for metric_shares in run["split"].values()
        for share in metric_shares
    )
    names += ["rest"] * rest
    report.section(header, SPLIT + REST * rest)
    rows = []
    for metric in findings["metrics"]:
        for run in runs:
            shares = {share["name"]: share for share in run["split"].get(metric, ())}
            rows.append([metric, run["run"], *(_value(shares.get(name)) for name in names)])
    report.table(
        ["metric", "run", "Pearson's r of return", *(f"from {name}" for name in names[1:])],
        _blank_repeats(rows),
        caption="The parts add up to the correlation, over all answers. In brackets: 95% intervals, bootstrap. "
        + " ".join(_numbers_of_split(runs, findings["metrics"])),
    )


def _in_bin(row: Mapping[str, Any]) -> str:
    return TOO_FEW if row["too_few"] and row["correlation"] is not None else _with_sign(row["correlation"])


def _numbers_of_split(runs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    return _numbers(runs, metrics, POOLED)[:2]


def add_lengths(report: Report, findings: Mapping[str, Any]) -> None:
    """Adds returns and the metric of short and of long answers."""
    metric, runs = findings["metric"], findings["runs"]
    reading = LENGTH.format(prompts=FEWEST_PROMPTS, events=FEWEST_EVENTS)
    report.section("Reliability by length", reading if metric else "Returns of short and of long answers.")
    rows = []
    for run in runs:
        for part in run["lengths"].get(metric or "", ()):
            ends = dict.fromkeys((part["shortest"], part["longest"]))
            tokens = "–".join(map(str, ends))
            row = [
                run["run"],
                tokens,
                f"{part['answers']}",
                _two_decimals(part["measure"]),
                _two_decimals(part["per_token"]),
            ]
            rows.append([*row, *([_two_decimals(part["metric"]), _in_bin(part)] if metric else [])])
    header = ["run", "tokens", "answers", "mean return", "a token"]
    report.table([*header, *([f"mean {metric}", "Spearman"] if metric else [])], _blank_repeats(rows))
    rows = [
        [run["run"], *(_value(find_row(run, "return", "tokens", scope)) for scope in (POOLED, WITHIN))]
        for run in runs
    ]
    report.subheading("Return against length")
    report.table(["run", "pooled", "within prompt"], rows)
    report.text(
        "Spearman's correlation of the return with the number of tokens: near 1 or −1 the reward measures little else."
    )


def _add_figures(report: Report, findings: Mapping[str, Any]) -> None:
    runs, metric = findings["runs"], findings["metric"]
    figures = [
        correlation_figure(
            [run["run"] for run in runs],
            [(name, [find_row(run, name, metric, scope) for run in runs]) for name in _measures(scope)],
            f"correlation with {metric}, {scope}",
        )
        for scope in (POOLED, WITHIN)
    ]
    report.figures(
        *figures,
        caption="Points: Spearman's correlation; lines: 95% intervals. What has too few to say is left out.",
    )
    tenths = {run["run"]: run["tenths"][metric] for run in runs if metric in run["tenths"]}
    report.subheading(f"`{metric}` from the lowest returns to the highest")
    counts = [f"{run}: {sum(row['answers'] for row in rows)} answers" for run, rows in tenths.items()]
    report.figures(tenths_figure(tenths, metric), caption=f"{TENTHS} {'; '.join(counts)}.")


def _measures(scope: str) -> list[str]:
    return [name for name in MEASURES if scope == POOLED or name != "v_0"]


def _rows(
    runs: Sequence[Mapping[str, Any]], metrics: Sequence[str], scope: str, entries: Any
) -> list[list[str]]:
    rows = [
        [metric, measure, *(text for run in runs for text in entries(run, measure, metric, scope))]
        for metric in metrics
        for measure in _measures(scope)
    ]
    return _blank_repeats(rows)


def _kendall(run: Mapping[str, Any], measure: str, metric: str, scope: str) -> list[str]:
    row, test = find_row(run, measure, metric, scope, "kendall"), find_row(run, measure, metric, scope)
    p = test["p_value"] if test else None
    return [_value(row), "-" if p is None else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"]


def _numbers(runs: Sequence[Mapping[str, Any]], metrics: Sequence[str], scope: str) -> list[str]:
    """The answers and prompts behind the correlations of the return, and why some have no interval or undefined draws."""
    rows = [
        (run["run"], metric, find_row(run, "return", metric, scope)) for metric in metrics for run in runs
    ]
    named_rows = [(f"{run}, `{metric}`", row) for run, metric, row in rows if row]
    counts = "; ".join(f"{name}: {describe_sample(row).removeprefix('over ')}" for name, row in named_rows)
    lacking = "; ".join(f"{name}: {explain_gap(row)}" for name, row in named_rows if row["low"] is None)
    undefined = "; ".join(
        f"{name}: {row['undefined_draws']} of {row['draws']}"
        for name, row in named_rows
        if row["undefined_draws"] and row["low"] is not None
    )
    left_out = " Prompts are left out in which the return or the metric is the same in all answers." * (
        scope == WITHIN
    )
    texts = [f"The return's are over: {counts}.{left_out}"]
    texts += [f"Too few to say: {lacking}."] * bool(lacking)
    texts += [f"Draws in which the return's correlation is undefined: {undefined}."] * bool(undefined)
    return texts


def _add_differences(report: Report, runs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> None:
    rows = []
    for run in runs:
        by_scope = {(row["metric"], row["scope"]): row for row in run["differences"]}
        for metric in metrics:
            pair = [by_scope.get((metric, scope)) for scope in (POOLED, WITHIN)]
            if any(pair):
                rows.append([f"{run['run']} less {runs[0]['run']}", metric, *map(_value, pair)])
    if rows:
        report.subheading("Differences between runs")
        differences = [row for run in runs for row in run["differences"]]
        notes = ["Of Spearman's correlation of the return."]
        notes += ["Each draw takes the same prompts of both runs."] * all(
            row["paired"] for row in differences
        )
        notes += [OTHER_ANSWERS] * (not all(row["same_answers"] for row in differences))
        report.table(["", "metric", "pooled", "within prompt"], _blank_repeats(rows), caption=" ".join(notes))


def _blank_repeats(rows: Sequence[list[str]]) -> list[list[str]]:
    """Blanks the first column where it repeats the row above."""
    return [["" if i and rows[i - 1][0] == row[0] else row[0], *row[1:]] for i, row in enumerate(rows)]


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    if row["low"] is None:
        return TOO_FEW
    return f"{_with_sign(row['value'])} [{_two_decimals(row['low'])}, {_two_decimals(row['high'])}]"


def _with_sign(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:+.2f}"


def _two_decimals(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 2) + 0.0:.2f}"

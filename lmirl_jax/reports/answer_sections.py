"""The sections of the report on rewards that show answers: ranked candidates, agreements and disagreements."""

from collections.abc import Mapping, Sequence

from lmirl_jax.reports.disagreements import Pair, RankedPrompt, misjudged_answers, pairs, ranked_prompts
from lmirl_jax.reports.report import Report
from lmirl_jax.reports.scored_rows import note_of, scored_row, shorten, with_sign
from lmirl_jax.rewards.scored import ScoredAnswer

# The most answers to a prompt in a ranking: half of them are the highest and half the lowest.
CANDIDATES = 6
RANKED = (
    "All answers to a prompt, the highest return first, equal answers once. Blue tokens add to the return, orange ones take from "
    "it; point at a token or tap it for its reward, or open the list below.{chosen}"
)
CHOSEN = " Not picked by hand: of each run {which}, of all prompts by their own correlation of return and `{metric}`."
DISAGREEING = (
    "Where the reward is wrong by `{metric}`, and where it is clearly right. Pairs are two answers to one prompt; shown are "
    "those for which the difference in return times that in `{metric}` is largest. Among all answers: those whose rank by "
    "return is farthest from their rank by `{metric}`."
)


def add_candidates(
    report: Report, answers: Mapping[str, Sequence[ScoredAnswer]], metric: str | None, count: int
) -> None:
    """Adds the ranked answers to some prompts of each run, as heat maps.

    Args:
        report: the page to add to.
        answers: the answers of the first seed of each run.
        metric: the metric that chooses the prompts, or None.
        count: the number of prompts for each run.
    """
    which = {1: "the worst", 2: "the worst and the best"}.get(count, "the worst, the middle one and the best")
    chosen = CHOSEN.format(which=which, metric=metric) if metric else ""
    report.section("Answers ranked by return", RANKED.format(chosen=chosen))
    for run, run_answers in answers.items():
        run_metric = metric if metric and all(metric in answer.metrics for answer in run_answers) else None
        for ranked in ranked_prompts(run_answers, run_metric, count):
            _add_ranking(report, run, ranked)


def add_disagreements(
    report: Report, answers: Mapping[str, Sequence[ScoredAnswer]], metric: str | None, count: int
) -> None:
    """Adds the answers where return and metric disagree most, and where they agree most.

    Args:
        report: the page to add to.
        answers: the answers of the first seed of each run.
        metric: larger is better; without one nothing can disagree.
        count: the number of examples of each kind.
    """
    title = "Where reward and metric disagree"
    if metric is None:
        report.section(title, "Does not apply: the answers have no metric in common.")
        return
    report.section(title, DISAGREEING.format(metric=metric))
    for run, run_answers in answers.items():
        if all(metric in answer.metrics for answer in run_answers):
            _add_pairs(
                report,
                run,
                "the reward prefers the worse answer",
                pairs(run_answers, metric, count, agreeing=False),
            )
            _add_single(
                report,
                run,
                f"high return, low `{metric}`",
                misjudged_answers(run_answers, metric, count, overrated=True),
            )
            _add_single(
                report,
                run,
                f"low return, high `{metric}`",
                misjudged_answers(run_answers, metric, count, overrated=False),
            )
            _add_pairs(report, run, "clearest agreements", pairs(run_answers, metric, count, agreeing=True))


def _add_ranking(report: Report, run: str, ranked: RankedPrompt) -> None:
    answers = ranked.answers
    head = len(answers) if len(answers) <= CANDIDATES else CANDIDATES // 2
    rows = [*enumerate(answers[:head], 1)]
    rows += [*enumerate(answers, 1)][max(head, len(answers) - CANDIDATES // 2) :]
    correlation = "" if ranked.correlation is None else f", correlation {with_sign(ranked.correlation)}"
    report.subheading(f"{run}: {len(answers)} different answers{correlation}")
    report.text(f"Prompt: {shorten(answers[0][0].inputs)}")
    if answers[0][0].reference:
        report.text(f"Reference: {shorten(answers[0][0].reference)}")
    left_out = len(answers) - len(rows)
    report.heat_map(
        [
            scored_row(answer, f"{place}{f' (×{times})' if times > 1 else ''}", note=note_of(answer))
            for place, (answer, times) in rows
        ],
        caption=f"{left_out} more different answers lie between these." if left_out else "",
    )


def _add_pairs(report: Report, run: str, title: str, items: Sequence[Pair]) -> None:
    report.subheading(f"{run}: {title}")
    if not items:
        report.text("None: no prompt has such a pair of answers.")
    for pair in items:
        report.text(f"Prompt: {shorten(pair.higher.inputs)}")
        report.heat_map([
            scored_row(pair.higher, "higher return", note=note_of(pair.higher)),
            scored_row(pair.lower, "lower return", note=note_of(pair.lower)),
        ])  # fmt: skip


def _add_single(report: Report, run: str, title: str, items: Sequence[ScoredAnswer]) -> None:
    report.subheading(f"{run}: {title}, among all answers")
    if not items:
        report.text("None.")
        return
    report.heat_map(
        [scored_row(answer, shorten(answer.inputs, 60), note=note_of(answer)) for answer in items]
    )

"""The parts of the report on rewards that show answers: candidates ranked, agreements and disagreements."""

from collections.abc import Mapping, Sequence

from lmirl_jax.reports.disagreements import Pair, Ranked, misjudged, pairs, ranked_prompts
from lmirl_jax.reports.report import Report
from lmirl_jax.reports.scored_rows import note_of, scored_row, shortened, signed
from lmirl_jax.rewards.scored import Scored

CANDIDATES = 6  # Of a prompt, half of them the highest and half the lowest.
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
    report: Report, answers: Mapping[str, Sequence[Scored]], metric: str | None, count: int
) -> None:
    """Adds the ranked answers to some prompts of each run, as heat maps.

    Args:
        report: it is added to.
        answers: of each run's first seed.
        metric: that chooses the prompts, or None.
        count: of prompts a run.
    """
    which = {1: "the worst", 2: "the worst and the best"}.get(count, "the worst, the middle one and the best")
    chosen = CHOSEN.format(which=which, metric=metric) if metric else ""
    report.section("Answers ranked by return", RANKED.format(chosen=chosen))
    for run, own in answers.items():
        measured = metric if metric and all(metric in answer.metrics for answer in own) else None
        for ranked in ranked_prompts(own, measured, count):
            _add_ranked(report, run, ranked)


def add_disagreements(
    report: Report, answers: Mapping[str, Sequence[Scored]], metric: str | None, count: int
) -> None:
    """Adds the answers where return and metric disagree most, and where they agree most.

    Args:
        report: it is added to.
        answers: of each run's first seed.
        metric: larger is better; without one nothing can disagree.
        count: of each kind.
    """
    title = "Where reward and metric disagree"
    if metric is None:
        report.section(title, "Does not apply: the answers have no metric in common.")
        return
    report.section(title, DISAGREEING.format(metric=metric))
    for run, own in answers.items():
        if all(metric in answer.metrics for answer in own):
            _add_pairs(
                report, run, "the reward prefers the worse answer", pairs(own, metric, count, agreeing=False)
            )
            _add_single(
                report, run, f"high return, low `{metric}`", misjudged(own, metric, count, overrated=True)
            )
            _add_single(
                report, run, f"low return, high `{metric}`", misjudged(own, metric, count, overrated=False)
            )
            _add_pairs(report, run, "clearest agreements", pairs(own, metric, count, agreeing=True))


def _add_ranked(report: Report, run: str, ranked: Ranked) -> None:
    answers = ranked.answers
    head = len(answers) if len(answers) <= CANDIDATES else CANDIDATES // 2
    shown = [*enumerate(answers[:head], 1)]
    shown += [*enumerate(answers, 1)][max(head, len(answers) - CANDIDATES // 2) :]
    own = "" if ranked.correlation is None else f", correlation {signed(ranked.correlation)}"
    report.subheading(f"{run}: {len(answers)} different answers{own}")
    report.text(f"Prompt: {shortened(answers[0][0].inputs)}")
    if answers[0][0].reference:
        report.text(f"Reference: {shortened(answers[0][0].reference)}")
    hidden = len(answers) - len(shown)
    report.heat_map(
        [
            scored_row(answer, f"{place}{f' (×{times})' if times > 1 else ''}", note=note_of(answer))
            for place, (answer, times) in shown
        ],
        caption=f"{hidden} more different answers lie between these." if hidden else "",
    )


def _add_pairs(report: Report, run: str, title: str, found: Sequence[Pair]) -> None:
    report.subheading(f"{run}: {title}")
    if not found:
        report.text("None: no prompt has such a pair of answers.")
    for pair in found:
        report.text(f"Prompt: {shortened(pair.higher.inputs)}")
        report.heat_map([
            scored_row(pair.higher, "higher return", note=note_of(pair.higher)),
            scored_row(pair.lower, "lower return", note=note_of(pair.lower)),
        ])  # fmt: skip


def _add_single(report: Report, run: str, title: str, found: Sequence[Scored]) -> None:
    report.subheading(f"{run}: {title}, among all answers")
    if not found:
        report.text("None.")
        return
    report.heat_map(
        [scored_row(answer, shortened(answer.inputs, 60), note=note_of(answer)) for answer in found]
    )

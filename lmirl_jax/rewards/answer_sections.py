"""The parts of the report on rewards that show answers: candidates ranked, agreements and disagreements."""

from collections.abc import Mapping, Sequence

from lmirl_jax.rewards.disagreements import Pair, Ranked, misjudged, pairs, ranked_prompts
from lmirl_jax.rewards.report import Report
from lmirl_jax.rewards.scored import Scored
from lmirl_jax.rewards.scored_rows import scored_row

CANDIDATES = 6  # Of a prompt, half of them the highest and half the lowest.
LONGEST_PROMPT = 600  # Letters.
RANKED = (
    "All answers to a prompt, the highest return first, equal answers once. Blue tokens add to the return, orange ones take from "
    "it; point at a token or tap it for its reward, or open the list below.{chosen}"
)
CHOSEN = (
    " Not picked by hand: of each run the prompts whose own correlation of return and `{metric}` is the lowest, the middle one "
    "and the highest."
)
DISAGREEING = (
    "Where the reward is wrong by `{metric}`, and where it is clearly right. Pairs are two answers to one prompt: those shown "
    "differ most in return times `{metric}`."
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
    chosen = CHOSEN.format(metric=metric) if metric else ""
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


def note_of(answer: Scored) -> str:
    """An answer's return and metrics, in a line."""
    values = [
        f"return {answer.total:+.2f}",
        *(f"{name} {value:.4g}" for name, value in answer.metrics.items()),
    ]
    return " · ".join([*values, *["truncated"] * answer.truncated]).replace("-", "−")


def _add_ranked(report: Report, run: str, ranked: Ranked) -> None:
    answers = ranked.answers
    head = len(answers) if len(answers) <= CANDIDATES else CANDIDATES // 2
    shown = [*enumerate(answers[:head], 1)]
    shown += [*enumerate(answers, 1)][max(head, len(answers) - CANDIDATES // 2) :]
    own = "" if ranked.correlation is None else f" (Spearman {ranked.correlation:+.2f})"
    report.subheading(f"{run}: {_short(answers[0][0].inputs)}{own}")
    _add_reference(report, answers[0][0])
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
        report.text(f"Prompt: {_short(pair.higher.inputs)}")
        report.heat_map([
            scored_row(pair.higher, "higher return", note=note_of(pair.higher)),
            scored_row(pair.lower, "lower return", note=note_of(pair.lower)),
        ])  # fmt: skip


def _add_single(report: Report, run: str, title: str, found: Sequence[Scored]) -> None:
    report.subheading(f"{run}: {title}, among all answers")
    if not found:
        report.text("None.")
        return
    report.heat_map([scored_row(answer, _short(answer.inputs, 60), note=note_of(answer)) for answer in found])


def _add_reference(report: Report, answer: Scored) -> None:
    if answer.reference:
        report.text(f"Reference: {_short(answer.reference)}")


def _short(text: str, most: int = LONGEST_PROMPT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

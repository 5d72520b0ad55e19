"""The sections of a page that compares runs: fronts, tables, and answers side by side."""

import dataclasses
from collections.abc import Mapping, Sequence

from lmirl_jax.evaluation.comparison import Comparison, bootstrap_words, compare, pairs, with_sign
from lmirl_jax.evaluation.front import (
    NOTATION,
    Cell,
    Interval,
    curves,
    describe,
    entry,
    sample_words,
    temperature_texts,
)
from lmirl_jax.evaluation.pareto import pareto_hull
from lmirl_jax.reports.figures import front_figure
from lmirl_jax.reports.report import Report

FAIRNESS = (
    "The TD term of IQLearn (lambda above 0) flattens the policy over the expert's answers, much as a higher temperature "
    "does. At one sampling temperature it would look more diverse and less accurate for that reason alone. So every run "
    "gets the same sweep of temperatures, and whole curves are compared: how diverse are the samples at equal {quality}?"
)
READING = (
    "Up and to the right is better. A curve that lies above another has more {quality} at equal diversity and more diversity "
    "at equal {quality}. Shaded: the 95% interval of the diversity that a run reaches at each level of {quality}, mixing "
    "neighbouring temperatures where that reaches further (bootstrap over {over}; none with too few to say).{hull}"
)
HULL = (
    " Dotted: the Pareto hull of all runs, the most diversity to be had at each level of {quality}; the settings at its "
    "corners, ringed, are those worth using."
)
AREA = (
    "Area: the integral, over the {quality} that both sweeps cover, of the run's lead in diversity over the baseline; positive "
    "where the run is ahead{signs}. Mean lead: over the verdict's levels of equal {quality}. Reach: the lead in {quality}, "
    "each run at its best temperature. In brackets: 95% intervals; bootstrap {over}."
)
# The smallest range of quality for which an area is reported.
NARROWEST = 1e-6


@dataclasses.dataclass(frozen=True)
class PromptAnswers:
    """The answers to one prompt: the prompt, the reference, and the samples of each run."""

    prompt: str
    target: str
    answers: Mapping[str, Sequence[str]]


def add_fronts(
    report: Report,
    cells: Sequence[Cell],
    *,
    quality: str = "accuracy",
    diversity: Sequence[str] = ("distinct_valid", "self_bleu"),
    baseline: str | None = None,
) -> None:
    """Adds quality against diversity: a figure for each measure of diversity, the table, the areas and the hull."""
    runs = curves(cells)
    title = describe(quality).title
    has_comparison = len(runs) > 1 and any(run.means[quality].any() for run in runs)
    report.section("Quality and diversity", FAIRNESS.format(quality=title))
    words = {
        "quality": title,
        "over": _sample_words(cells),
        "hull": HULL.format(quality=title) * has_comparison,
    }
    report.figures(
        *(front_figure(cells, quality=quality, diversity=[name]) for name in diversity),
        caption=READING.format(**words),
    )
    add_sweep_table(report, cells, [quality, *diversity])
    if has_comparison:
        _add_areas(report, cells, quality, diversity, baseline)
        _add_hull(report, cells, quality, diversity)


def add_sweep_table(report: Report, cells: Sequence[Cell], metrics: Sequence[str]) -> None:
    """Adds the table of `evaluation.front.table`: one row for each temperature, the runs side by side."""
    runs = curves(cells)
    temperatures = sorted({temperature for run in runs for temperature in run.temperatures})
    rows = [
        [text, *(entry(run, metric, temperature) for run in runs for metric in metrics)]
        for text, temperature in zip(temperature_texts(temperatures), temperatures, strict=True)
    ]
    descriptions = [describe(metric) for metric in metrics]
    names = [f"{metric.short}: {metric.title}" for metric in descriptions if metric.short != metric.title]
    spread = NOTATION.format(over=_sample_words(cells))
    report.table(
        ["T", *(metric.short for _ in runs for metric in descriptions)],
        rows,
        groups=[("", 1), *((run.label, len(metrics)) for run in runs)],
        caption="; ".join(["T: sampling temperature", *names, spread]) + ".",
    )


def add_temperature_tables(report: Report, cells: Sequence[Cell]) -> None:
    """Adds one table for each temperature: one row for each metric, the runs side by side."""
    runs = curves(cells)
    temperatures = sorted({temperature for run in runs for temperature in run.temperatures})
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.means))
    report.section("Every metric, temperature by temperature")
    for text, temperature in zip(temperature_texts(temperatures), temperatures, strict=True):
        report.subheading(f"Temperature {text}")
        rows = [[metric, *(entry(run, metric, temperature) for run in runs)] for metric in metrics]
        report.table(["metric", *(run.label for run in runs)], rows)
    report.text(f"{NOTATION.format(over=_sample_words(cells))}, or for a metric of all prompts together.")


def add_answers(report: Report, prompts: Sequence[PromptAnswers], point: tuple[float, float]) -> None:
    """Adds the answers of each run to the same prompts, side by side."""
    temperature, top_p = point
    at = f"temperature {temperature:g}" + (f" and top-p {top_p:g}" if top_p < 1 else "")
    report.section(
        "Answers side by side",
        f"The first samples of each run to the first prompts, at {at}; none is picked.",
    )
    for prompt in prompts:
        report.subheading(f"Prompt: {prompt.prompt}")
        if prompt.target:
            report.text(f"Reference: {prompt.target}")
        report.columns(prompt.answers)


def _sample_words(cells: Sequence[Cell]) -> str:
    return sample_words(curves(cells))


def _add_areas(
    report: Report, cells: Sequence[Cell], quality: str, diversity: Sequence[str], baseline: str | None
) -> None:
    rows, without, too_few = [], [], []
    several = len({cell.top_p for cell in cells}) > 1
    for name in diversity:
        for base, run in pairs(cells, baseline):
            both = (base.values, run.values)
            if not all(metric in values for values in both for metric in (quality, name)):
                continue
            comparison = compare(base, run, quality=quality, diversity=name)
            if comparison is not None and comparison.too_few:
                too_few.append(
                    f"{run.label} over {base.label} ({describe(name).title}): {comparison.too_few}"
                )
            elif comparison is None or comparison.shared[1] - comparison.shared[0] < NARROWEST:
                without.append(f"{run.label} over {base.label} ({describe(name).title})")
            else:
                place = [f"{run.run} over {base.run}", *[f"{run.top_p:g}"] * several, describe(name).short]
                rows.append([*place, *_area_texts(comparison, quality, name)])
    if not rows and not without and not too_few:
        return
    title = describe(quality).title
    report.subheading("Area between the curves")
    if rows:
        report.table(
            ["", *["top-p"] * several, "diversity", "area", "mean lead", "reach", f"{title} shared"],
            rows,
            caption=_area_caption(cells, title, diversity),
        )
    if too_few:
        report.text(f"Too few to say: {'; '.join(too_few)}.")
    if without:
        report.text(
            f"No area, as the sweeps share no range of {title}: {'; '.join(without)}. Sweep more temperatures."
        )


def _area_caption(cells: Sequence[Cell], title: str, diversity: Sequence[str]) -> str:
    reversed_ones = [describe(name).title for name in diversity if describe(name).sign < 0]
    signs = f" (a lower {', '.join(reversed_ones)} is ahead)" * bool(reversed_ones)
    return AREA.format(quality=title, signs=signs, over=bootstrap_words(curves(cells)))


def _area_texts(comparison: Comparison, quality: str, diversity: str) -> list[str]:
    digits, fine = describe(diversity).digits, describe(quality).digits
    return [
        _interval_text(comparison.area, digits + 1),
        _interval_text(comparison.mean_difference, digits),
        _interval_text(comparison.reach, fine),
        " to ".join(f"{value:.{fine}f}" for value in comparison.shared),
    ]


def _interval_text(value: Interval, digits: int) -> str:
    text = with_sign(value.mean, digits)
    if value.low is None or value.high is None:
        return text
    return f"{text} [{with_sign(value.low, digits)}, {with_sign(value.high, digits)}]"


def _add_hull(report: Report, cells: Sequence[Cell], quality: str, diversity: Sequence[str]) -> None:
    several = len({cell.top_p for cell in cells}) > 1
    report.subheading("The Pareto hull")
    for name in diversity:
        rows = [
            [
                corner.run,
                f"{corner.temperature:g}",
                *[f"{corner.top_p:g}"] * several,
                f"{corner.quality:.{describe(quality).digits}f}",
                f"{corner.diversity:.{describe(name).digits}f}",
            ]
            for corner in pareto_hull(cells, quality=quality, diversity=name)
        ]
        report.table(["run", "T", *["top-p"] * several, describe(quality).short, describe(name).short], rows)

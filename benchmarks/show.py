"""Draws the pictures of README.md and docs/when.md, and prints the tables of docs/when.md, from their committed results.

    launch/local.sh python benchmarks/show.py

Writes docs/quickstart.png from results/quickstart.json, and docs/when.png and docs/when_fronts.png from
results/small_data.json; results/small_data_same_rate.json is that study with `--rates=3e-4`, and
results/small_data_100.json with 100 demonstrations. A test compares the page with the tables.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from lmirl_jax.evaluation.front import describe
from lmirl_jax.reports.comparison_sections import NARROWEST
from lmirl_jax.reports.figures import LINES, MARKERS, SERIES, add_legend, new_figure, style_axis

ROOT = Path(__file__).resolve().parent.parent
DPI = 110


def front(axis: Any, found: dict, diversity: str, title: str) -> None:
    """Quality against diversity, a curve a run; bars are 95% intervals over prompts and seeds."""
    style_axis(axis)
    quality = found["quality"]
    for i, run in enumerate(dict.fromkeys(row["run"] for row in found["curves"])):
        rows = {
            metric: [row for row in found["curves"] if (row["run"], row["metric"]) == (run, metric)]
            for metric in (quality, diversity)
        }
        x, y = ([row["value"] for row in rows[metric]] for metric in (diversity, quality))
        bars = [
            [[row["value"] - row["low"] for row in rows[m]], [row["high"] - row["value"] for row in rows[m]]]
            for m in (diversity, quality)
        ]
        look = {"color": SERIES[i], "marker": MARKERS[i], "linestyle": LINES[i % len(LINES)]}
        axis.errorbar(
            x, y, xerr=bars[0], yerr=bars[1], elinewidth=0.5, linewidth=1.6, markersize=5, label=run, **look
        )
    axis.set_xlabel(describe(diversity).title)
    axis.set_ylabel(f"{describe(quality).title} (share of answers)")
    add_legend(axis, title)


def losses(axis: Any, study: dict) -> None:
    """The held-out loss of each objective at its learning rate: the mean over seeds."""
    style_axis(axis)
    for i, (objective, rate) in enumerate(study["learning_rates"].items()):
        runs = [
            run["curve"]
            for run in study["validation"]
            if (run["objective"], run["rate"]) == (objective, rate)
        ]
        steps = [at["step"] for at in runs[0]]
        mean = [statistics.fmean(curve[j]["loss"] for curve in runs) for j in range(len(steps))]
        look = {"color": SERIES[i], "marker": MARKERS[i], "linestyle": LINES[i % len(LINES)]}
        axis.plot(steps, mean, linewidth=1.6, markersize=4, label=f"{objective}, rate {rate:g}", **look)
    axis.set_xlabel("updates")
    axis.set_ylabel("held-out loss, nats per token")
    add_legend(axis, "-log pi on the validation split, mean over seeds")


def tuning_table(study: dict) -> list[str]:
    """The best `distinct_valid` on the validation split of each objective's first seed, by learning rate."""
    rates = sorted({run["rate"] for run in study["validation"]})
    lines = ["| | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for objective, chosen in study["learning_rates"].items():
        entries = []
        for rate in rates:
            (curve,) = (
                run["curve"]
                for run in study["validation"]
                if (run["objective"], run["rate"], run["seed"]) == (objective, rate, 0)
            )
            best = f"{max(at['distinct_valid'] for at in curve):.2f}"
            entries.append(f"**{best}**" if rate == chosen else best)
        lines.append(f"| {objective} | " + " | ".join(entries) + " |")
    return lines


def loss_table(study: dict) -> list[str]:
    """The held-out loss of each objective, a mean over seeds: where it is lowest, and after the last update."""
    lines = [
        "| | lowest held-out loss | after how many updates | held-out loss at the end |",
        "|---|---|---|---|",
    ]
    for objective, rate in study["learning_rates"].items():
        curves = [
            run["curve"]
            for run in study["validation"]
            if (run["objective"], run["rate"]) == (objective, rate)
        ]
        lowest = [min(curve, key=lambda at: at["loss"]) for curve in curves]
        loss, steps = (statistics.fmean(at[name] for at in lowest) for name in ("loss", "step"))
        last = statistics.fmean(curve[-1]["loss"] for curve in curves)
        lines.append(f"| {objective} | {loss:.3f} | {steps:.0f} | {last:.3f} |")
    return lines


def lead_table(found: dict) -> list[str]:
    """How each objective's front compares with MLE's in a sweep: its best points, and its leads at equal quality."""
    leads = {lead["run"]: lead for lead in found["diversity"]["distinct_valid"]["comparisons"]}
    lines = [
        "| | highest validity (T) | most valid distinct answers of 8 (T) | lead in them at equal validity | area |",
        "|---|---|---|---|---|",
    ]
    for objective in dict.fromkeys(row["run"] for row in found["curves"]):
        tops = []
        for metric, digits in ((found["quality"], 3), ("distinct_valid", 2)):
            rows = [row for row in found["curves"] if (row["run"], row["metric"]) == (objective, metric)]
            top = max(rows, key=lambda row: row["value"])
            tops.append(f"{top['value']:.{digits}f} ({top['temperature']:g})")
        lead = leads.get(objective)
        # An area needs a range of quality that both sweeps cover.
        wide = lead is not None and lead["shared"][1] - lead["shared"][0] > NARROWEST
        compared = [
            "" if lead is None else signed(lead["mean_difference"], 2),
            signed(lead["area"], 3) if lead is not None and wide else "",
        ]
        lines.append("| " + " | ".join([objective, *tops, *compared]) + " |")
    return lines


def signed(interval: dict, digits: int) -> str:
    return f"{interval['mean']:+.{digits}f} [{interval['low']:+.{digits}f}, {interval['high']:+.{digits}f}]"


def save(figure: Any, name: str) -> None:
    figure.savefig(ROOT / "docs" / name, dpi=DPI, metadata={"Software": None})


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def main() -> None:
    found = result("quickstart.json")
    figure = new_figure(9.5, 4.2)
    for place, diversity in enumerate(("distinct_valid", "self_bleu"), start=1):
        axis = figure.add_subplot(1, 2, place)
        front(axis, found, diversity, "temperatures .25 to 1.25; bars: 95% intervals")
        if describe(diversity).sign < 0:
            axis.invert_xaxis()
            axis.set_xlabel(f"{describe(diversity).title} (reversed: lower is more diverse)")
    save(figure, "quickstart.png")
    study, same_rate = result("small_data.json"), result("small_data_same_rate.json")
    figure = new_figure(10.5, 4.4)
    left = figure.add_subplot(1, 2, 1)
    losses(left, study)
    losses(figure.add_subplot(1, 2, 2, sharey=left), same_rate)
    save(figure, "when.png")
    figure = new_figure(10.5, 4.6)
    for place, (reading, title) in enumerate(
        (("best", "each run at its best checkpoint"), ("last", "after the last update"))
    ):
        front(figure.add_subplot(1, 2, place + 1), study["readings"][reading], "distinct_valid", title)
    save(figure, "when_fronts.png")
    print("\n".join([*tuning_table(study), "", *loss_table(study)]))
    for each in (study, same_rate, result("small_data_100.json")):
        for name, found in (each["readings"] | {"online": each.get("online")}).items():
            if found is not None:
                print("\n".join(["", name, *lead_table(found)]))


if __name__ == "__main__":
    main()

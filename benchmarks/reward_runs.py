"""Whether rewards can be trusted, over seeds: correlations and corruption tests of MLE, IQLearn and online IQLearn.

    launch/local.sh python benchmarks/reward_runs.py --folder=/tmp/reward_runs [--seeds=0,1,2] [--steps=1000] [--updates=300]

Trains the quickstart's MLE and IQLearn runs with every seed, and from each seed's MLE run online IQLearn, each by `lmirl train`
with the defaults of its gin file. Then `lmirl report` with gin/runs/quickstart_report.gin, twice: each run rewards its own
answers, and all reward those of the first MLE run. What is finished is not made again. Prints a JSON object: of each report
the correlations with their intervals and p-values, what they are made of, each seed's own values, and the corruption tests.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax

from lmirl_jax.rewards import read_scored
from lmirl_jax.rewards.trust_findings import trust_findings

LABELS = {"MLE": "mle", "IQLearn": "iqlearn", "online IQLearn": "online_iqlearn"}
FILES = {
    "mle": ["runs/quickstart", "objectives/mle"],
    "iqlearn": ["runs/quickstart", "objectives/iqlearn"],
    "online_iqlearn": ["runs/online_iqlearn"],
}
REPORTS = {"own answers": None, "answers of the first MLE run": "MLE"}
METRICS = ("accuracy", "valid")
MEASURES = ("return", "normalised return", "log-likelihood", "v_0", "tokens")


def run(command: str, files: list[str], settings: dict, log: Path) -> None:
    given = [f"--gin_file=gin/{name}.gin" for name in files]
    given += [f"--gin.{name}={value!r}" for name, value in settings.items()]
    began = time.monotonic()
    with open(log, "a") as file:
        subprocess.run(
            [sys.executable, "-m", "lmirl_jax", command, *given], stdout=file, stderr=file, check=True
        )
    print(f"{log.stem}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def train(folder: Path, recipe: str, seed: int, steps: dict[str, int]) -> None:
    """Trains a run, unless it is finished."""
    own = folder / f"{recipe}-{seed}"
    settings = {"MODEL_DIR": str(own), "RANDOM_SEED": seed, "TRAIN_STEPS": steps[recipe]}
    if recipe == "online_iqlearn":
        settings |= {"INITIAL_CHECKPOINT_PATH": str(folder / f"mle-{seed}"), "PROMPT_SEED": 1 + 1000 * seed}
    if not (own / "checkpoints" / str(steps[recipe])).exists():
        run("train", FILES[recipe], settings, folder / f"{own.name}.log")


def report(folder: Path, seeds: list[int], answers_of: str | None) -> dict:
    """Makes the report, unless it is there, and reads it."""
    made = folder / f"report-{answers_of or 'own'}-{len(seeds)}"
    runs = {label: [str(folder / f"{name}-{seed}") for seed in seeds] for label, name in LABELS.items()}
    if not (made / "report.json").exists():
        settings = {"OUTPUT_DIR": str(made), "RUNS": runs, "ANSWERS_OF": answers_of}
        run("report", ["runs/quickstart_report"], settings, folder / f"{made.name}.log")
    found = json.loads((made / "report.json").read_text(encoding="utf-8"))
    return {own["run"]: read(own) | {"each_seed": each_seed(made, own["run"])} for own in found["runs"]}


def read(findings: dict) -> dict:
    """Of one run of a report: what the tables in benchmarks/README.md are made of."""
    found = {name: findings[name] for name in ("seeds", "prompts", "answers", "truncated", "telescopes")}
    found["correlations"] = [
        row for row in findings["correlations"] if row["metric"] in METRICS and row["measure"] in MEASURES
    ]
    found["differences"] = [row for row in findings["differences"] if row["metric"] in METRICS]
    found["split"] = {metric: findings["split"][metric] for metric in METRICS}
    found["corruptions"] = findings["corruptions"]
    return found


def each_seed(made: Path, label: str) -> list[dict]:
    """Of each seed alone, from what the report has scored: accuracy, Spearman's correlations of the return, its spread."""
    name = "".join(letter if letter.isalnum() else "_" for letter in label)
    found = []
    for path in sorted((made / "scored").glob(f"{name}-[0-9]*.jsonl")):
        answers = list(read_scored(path))
        if answers[0].reference is None:
            continue  # What was damaged.
        (own,) = trust_findings({label: [answers]}, draws=1)["runs"]
        values = {
            f"{row['metric']}, {row['scope']}": row["value"]
            for row in own["correlations"]
            if row["measure"] == "return" and row["kind"] == "spearman" and row["metric"] in METRICS
        }
        means = {
            metric: sum(answer.metrics[metric] for answer in answers) / len(answers) for metric in METRICS
        }
        spread = {
            "return": statistics.pstdev(answer.total for answer in answers),
            "v_0": statistics.pstdev({answer.example: answer.v_0 for answer in answers}.values()),
        }
        found.append({"means": means, "spearman": values, "standard_deviation": spread})
    return found


def rounded(value):
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(own) for name, own in value.items()}
    return [rounded(own) for own in value] if isinstance(value, list) else value


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=300)
    return parser.parse_args()


def main() -> None:
    asked = options()
    asked.folder.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    steps = {"mle": asked.steps, "iqlearn": asked.steps, "online_iqlearn": asked.updates}
    for seed in seeds:
        for recipe in FILES:
            train(asked.folder, recipe, seed, steps)
    reports = {name: report(asked.folder, seeds, whose) for name, whose in REPORTS.items()}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    head = {
        "command": f"--seeds={asked.seeds} --steps={asked.steps} --updates={asked.updates}",
        "commit": commit.stdout.strip(),
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}, JAX {jax.__version__}",
    }
    print(json.dumps(head | rounded(reports), indent=1))


if __name__ == "__main__":
    main()

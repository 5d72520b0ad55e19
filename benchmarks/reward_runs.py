"""Whether rewards can be trusted, over seeds: correlations and corruption tests of MLE, IQLearn and online IQLearn.

    launch/local.sh python benchmarks/reward_runs.py --folder=/tmp/reward_runs [--seeds=0,1,2] [--steps=1000] [--updates=300]

Trains the quickstart's MLE and IQLearn runs with every seed, and from each seed's MLE run online IQLearn and, for as many
updates, MLE; each by `lmirl train` with the defaults of its gin file. Then `lmirl report` with
gin/runs/quickstart_report.gin: each run rewards its own answers; and for every seed, all runs reward those of the seed's MLE
run. What is finished is not made again. Prints a JSON object: of own answers the correlations with their intervals and
p-values, what they are made of, each seed's own values, the corruption tests, and how often a place would be found by log pi
in the reward's stead; of each MLE run's answers each seed's own values, and how the runs of the other seeds differ, none of
which rewards what it wrote itself.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from provenance import provenance

from lmirl_jax.rewards import CORRUPTIONS, corrupt, effects_of_corruptions, read_scored
from lmirl_jax.rewards.trust_findings import trust_findings

LABELS = {"MLE": "mle", "IQLearn": "iqlearn", "online IQLearn": "online_iqlearn", "MLE went on": "mle_on"}
FROM_MLE = ("online_iqlearn", "mle_on")  # They begin from the MLE run of their seed.
FILES = {
    "mle": ["runs/quickstart", "objectives/mle"],
    "iqlearn": ["runs/quickstart", "objectives/iqlearn"],
    "online_iqlearn": ["runs/online_iqlearn"],
    "mle_on": ["runs/quickstart", "objectives/mle"],
}
WRITER = "MLE"
METRICS = ("accuracy", "valid")
CONTROLS = ("normalised return", "log-likelihood", "v_0", "tokens")


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
    if recipe in FROM_MLE:
        settings["INITIAL_CHECKPOINT_PATH"] = str(folder / f"mle-{seed}")
    if recipe == "online_iqlearn":
        settings["PROMPT_SEED"] = 1 + 1000 * seed
    if not (own / "checkpoints" / str(steps[recipe])).exists():
        run("train", FILES[recipe], settings, folder / f"{own.name}.log")


def own_answers(folder: Path, seeds: list[int]) -> dict:
    """What comes of it when each run rewards its own answers."""
    made, found = report(folder, seeds, None), {}
    for own in json.loads((made / "report.json").read_text(encoding="utf-8"))["runs"]:
        answers, damaged = scored_files(made, own["run"])
        found[own["run"]] = read(own) | {
            "each_seed": each_seed(answers),
            "corruptions": own["corruptions"],
            "located_by_log_prob": located_by_log_prob(damaged),
        }
    return found


def answers_of(folder: Path, writer: int, seeds: list[int]) -> dict:
    """What comes of it when all runs reward the answers of one seed's MLE run."""
    order = [writer, *(seed for seed in seeds if seed != writer)]
    made = report(folder, order, writer)
    answers = {label: scored_files(made, label)[0] for label in LABELS}
    others = trust_findings({label: own[1:] for label, own in answers.items()})["runs"]
    return {
        own["run"]: {
            "seeds": order,
            "each_seed": each_seed(answers[own["run"]]),
            "differences_without_the_writers_seed": read(own)["differences"],
        }
        for own in others
    }


def report(folder: Path, seeds: list[int], writer: int | None) -> Path:
    """Makes the report, unless it is there; the answers are those of a label's first seed."""
    whose = "own" if writer is None else f"{WRITER}_{writer}"
    made = folder / f"report-{whose}-{len(seeds)}-{len(LABELS)}"
    if not (made / "report.json").exists():
        runs = {label: [str(folder / f"{name}-{seed}") for seed in seeds] for label, name in LABELS.items()}
        settings = {"OUTPUT_DIR": str(made), "RUNS": runs, "ANSWERS_OF": None if writer is None else WRITER}
        run("report", ["runs/quickstart_report"], settings, folder / f"{made.name}.log")
    return made


def read(findings: dict) -> dict:
    """Of one run of a report: what the tables in benchmarks/README.md are made of."""
    found = {name: findings[name] for name in ("seeds", "prompts", "answers", "truncated", "telescopes")}
    found["correlations"] = [
        row
        for row in findings["correlations"]
        if row["metric"] in METRICS
        and row["value"] is not None
        and (row["measure"] == "return" or (row["measure"] in CONTROLS and row["kind"] == "spearman"))
    ]
    found["differences"] = [row for row in findings["differences"] if row["metric"] in METRICS]
    found["split"] = {metric: findings["split"][metric] for metric in METRICS}
    return found


def scored_files(made: Path, label: str) -> tuple[list, list]:
    """What a report has scored, seed by seed: answers, and targets with each damage of them."""
    name = "".join(letter if letter.isalnum() else "_" for letter in label)
    answers, damaged = [], []
    for path in sorted((made / "scored").glob(f"{name}-[0-9]*.jsonl")):
        found = list(read_scored(path))
        (damaged if found[0].reference is None else answers).append(found)
    return answers, damaged


def each_seed(answers: list) -> list[dict]:
    """Of each seed alone: means of the metrics, Spearman's correlations of the return, and how far it and v_0 spread."""
    found = []
    for own in answers:
        (findings,) = trust_findings({"run": [own]}, draws=1)["runs"]
        values = {
            f"{row['metric']}, {row['scope']}": row["value"]
            for row in findings["correlations"]
            if row["measure"] == "return" and row["kind"] == "spearman" and row["metric"] in METRICS
        }
        means = {metric: statistics.fmean(answer.metrics[metric] for answer in own) for metric in METRICS}
        spread = {
            "return": statistics.pstdev(answer.total for answer in own),
            "v_0": statistics.pstdev({answer.example: answer.v_0 for answer in own}.values()),
        }
        found.append({"means": means, "spearman": values, "standard_deviation": spread})
    return found


def located_by_log_prob(damaged: list) -> dict[str, float]:
    """The share of damages, by kind, that are where log pi drops most: what `located` is for rewards."""
    from lmirl_jax.tasks import number_paths

    damages = {**CORRUPTIONS, "wrong step": number_paths.wrong_step}
    pairs = []
    for own in damaged:
        by_place = {
            (answer.example, answer.candidate): dataclasses.replace(answer, reward=answer.log_prob)
            for answer in own
        }
        for example in sorted({answer.example for answer in own}):
            right = by_place[example, 0]
            made = corrupt(right.inputs, right.targets, damages, seed=0, is_right=number_paths.reward)
            places = {answer.targets: answer for (number, _), answer in by_place.items() if number == example}
            pairs += [(right, places[damage.targets], damage) for damage in made]
    return {effect.kind: effect.located for effect in effects_of_corruptions(pairs)}


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
    steps = {recipe: asked.updates if recipe in FROM_MLE else asked.steps for recipe in FILES}
    for seed in seeds:
        for recipe in FILES:
            train(asked.folder, recipe, seed, steps)
    reports = {"own answers": own_answers(asked.folder, seeds)}
    for seed in seeds:
        reports[f"answers of {WRITER}, seed {seed}"] = answers_of(asked.folder, seed, seeds)
    head = provenance(asked)
    print(json.dumps(head | rounded(reports), indent=1))


if __name__ == "__main__":
    main()

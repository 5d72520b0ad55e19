"""Whether rewards can be trusted, over seeds: correlations and corruption tests of MLE, IQLearn and online IQLearn.

    launch/local.sh python benchmarks/reward_runs.py --folder=/tmp/reward_runs [--seeds=0,1,2] [--steps=1000] [--updates=300]

Trains gin/runs/number_paths.gin by MLE and by IQLearn with every seed, and from each seed's MLE run online IQLearn and, for as
many updates, MLE; each by `lmirl train` with the defaults of its gin file. Then it runs `lmirl report` with
gin/runs/number_paths_report.gin twice: each run rewards the answers that it sampled itself, and for every seed all runs reward
the answers of that seed's MLE run. Finished runs are not made again. It prints a JSON object. For the first reports it holds
the correlations with their intervals and p-values, their parts, the values of each seed, the corruption tests, and how often
log pi alone would find the place of a corruption. For the second reports it holds the values of each seed, and how the runs
of the other seeds differ, which reward answers of another run only.
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
# These runs begin from the MLE run of their seed.
FROM_MLE = ("online_iqlearn", "mle_on")
FILES = {
    "mle": ["runs/number_paths", "objectives/mle"],
    "iqlearn": ["runs/number_paths", "objectives/iqlearn"],
    "online_iqlearn": ["runs/online_iqlearn"],
    "mle_on": ["runs/number_paths", "objectives/mle"],
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
    model_dir = folder / f"{recipe}-{seed}"
    settings = {"MODEL_DIR": str(model_dir), "RANDOM_SEED": seed, "TRAIN_STEPS": steps[recipe]}
    if recipe in FROM_MLE:
        settings["INITIAL_CHECKPOINT_PATH"] = str(folder / f"mle-{seed}")
    if recipe == "online_iqlearn":
        settings["PROMPT_SEED"] = 1 + 1000 * seed
    if not (model_dir / "checkpoints" / str(steps[recipe])).exists():
        run("train", FILES[recipe], settings, folder / f"{model_dir.name}.log")


def judge_own_answers(folder: Path, seeds: list[int]) -> dict:
    """The results where each run rewards the answers that it has written."""
    page, results = report(folder, seeds, None), {}
    for findings in json.loads((page / "report.json").read_text(encoding="utf-8"))["runs"]:
        answers, damaged = scored_files(page, findings["run"])
        results[findings["run"]] = read(findings) | {
            "each_seed": each_seed(answers),
            "corruptions": findings["corruptions"],
            "located_by_log_prob": locate_by_log_prob(damaged),
        }
    return results


def judge_answers_of(folder: Path, writer: int, seeds: list[int]) -> dict:
    """The results where all runs reward the answers of one seed's MLE run."""
    order = [writer, *(seed for seed in seeds if seed != writer)]
    page = report(folder, order, writer)
    answers = {label: scored_files(page, label)[0] for label in LABELS}
    others = trust_findings({label: seed_answers[1:] for label, seed_answers in answers.items()})["runs"]
    return {
        findings["run"]: {
            "seeds": order,
            "each_seed": each_seed(answers[findings["run"]]),
            "differences_without_the_writers_seed": read(findings)["differences"],
        }
        for findings in others
    }


def report(folder: Path, seeds: list[int], writer: int | None) -> Path:
    """Makes the report, unless it is there; the answers are those of a label's first seed."""
    whose = "own" if writer is None else f"{WRITER}_{writer}"
    output_dir = folder / f"report-{whose}-{len(seeds)}-{len(LABELS)}"
    if not (output_dir / "report.json").exists():
        runs = {label: [str(folder / f"{name}-{seed}") for seed in seeds] for label, name in LABELS.items()}
        settings = {
            "OUTPUT_DIR": str(output_dir),
            "RUNS": runs,
            "ANSWERS_OF": None if writer is None else WRITER,
        }
        run("report", ["runs/number_paths_report"], settings, folder / f"{output_dir.name}.log")
    return output_dir


def read(findings: dict) -> dict:
    """The numbers of one run of a report that the tables in benchmarks/README.md need."""
    results = {name: findings[name] for name in ("seeds", "prompts", "answers", "truncated", "telescopes")}
    results["correlations"] = [
        row
        for row in findings["correlations"]
        if row["metric"] in METRICS
        and row["value"] is not None
        and (row["measure"] == "return" or (row["measure"] in CONTROLS and row["kind"] == "spearman"))
    ]
    results["differences"] = [row for row in findings["differences"] if row["metric"] in METRICS]
    results["split"] = {metric: findings["split"][metric] for metric in METRICS}
    return results


def scored_files(page: Path, label: str) -> tuple[list, list]:
    """Reads the scored answers, and the scored targets with their damaged copies, of each seed of a report."""
    name = "".join(letter if letter.isalnum() else "_" for letter in label)
    answers, damaged = [], []
    for path in sorted((page / "scored").glob(f"{name}-[0-9]*.jsonl")):
        scored = list(read_scored(path))
        (damaged if scored[0].reference is None else answers).append(scored)
    return answers, damaged


def each_seed(answers: list) -> list[dict]:
    """For each seed: the means of the metrics, Spearman's correlations of the return, and standard deviations of it and v_0."""
    results = []
    for seed_answers in answers:
        (findings,) = trust_findings({"run": [seed_answers]}, draws=1)["runs"]
        values = {
            f"{row['metric']}, {row['scope']}": row["value"]
            for row in findings["correlations"]
            if row["measure"] == "return" and row["kind"] == "spearman" and row["metric"] in METRICS
        }
        means = {
            metric: statistics.fmean(answer.metrics[metric] for answer in seed_answers) for metric in METRICS
        }
        spread = {
            "return": statistics.pstdev(answer.total for answer in seed_answers),
            "v_0": statistics.pstdev({answer.example: answer.v_0 for answer in seed_answers}.values()),
        }
        results.append({"means": means, "spearman": values, "standard_deviation": spread})
    return results


def locate_by_log_prob(damaged: list) -> dict[str, float]:
    """The share of damages, by kind, at whose place log pi drops most; `located` is the same share for rewards."""
    from lmirl_jax.tasks import number_paths

    damages = {**CORRUPTIONS, "wrong step": number_paths.wrong_step}
    pairs = []
    for seed_answers in damaged:
        by_place = {
            (answer.example, answer.candidate): dataclasses.replace(answer, reward=answer.log_prob)
            for answer in seed_answers
        }
        for example in sorted({answer.example for answer in seed_answers}):
            right = by_place[example, 0]
            corruptions = corrupt(right.inputs, right.targets, damages, seed=0, is_right=number_paths.reward)
            places = {answer.targets: answer for (number, _), answer in by_place.items() if number == example}
            pairs += [(right, places[damage.targets], damage) for damage in corruptions]
    return {effect.kind: effect.located for effect in effects_of_corruptions(pairs)}


def round_numbers(value):
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: round_numbers(item) for name, item in value.items()}
    return [round_numbers(item) for item in value] if isinstance(value, list) else value


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
    reports = {"own answers": judge_own_answers(asked.folder, seeds)}
    for seed in seeds:
        reports[f"answers of {WRITER}, seed {seed}"] = judge_answers_of(asked.folder, seed, seeds)
    head = provenance(asked)
    print(json.dumps(head | round_numbers(reports), indent=1))


if __name__ == "__main__":
    main()

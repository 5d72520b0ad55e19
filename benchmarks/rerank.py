"""The best of n samples, and majorities, by the return of a run against by log-likelihood, over seeds.

    launch/local.sh python benchmarks/rerank.py --folder=/tmp/reward_runs [--seeds=0,1,2] [--samples=16]

On what benchmarks/reward_runs.py has trained: every seed's MLE run answers the 240 validation prompts of number_paths at
temperature 1, by `lmirl sweep` with RERANK, and its samples are ranked by the returns of several runs: itself, MLE of another
seed, the same run of MLE that went on, IQLearn and online IQLearn of its seed. What is finished is not made again. Prints a
JSON object: for each of these the accuracy of what is chosen, mean over seeds and each seed's own.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

from provenance import provenance

# A control: the returns of a second model, which differs only by its seed.
ANOTHER = "MLE of another seed"
REWARDS = {
    "MLE": "mle",
    ANOTHER: "mle",
    "MLE went on": "mle_on",
    "IQLearn": "iqlearn",
    "online IQLearn": "online_iqlearn",
}


def sweep(folder: Path, seed: int, reward: str, samples: int) -> dict[str, float]:
    """The metrics of one seed's samples, ranked by the run of that name."""
    output_dir = folder / f"rerank-{seed}-by-{reward}-{samples}"
    settings = {
        "RUNS": {"MLE": [str(folder / f"mle-{seed}")]},
        "OUTPUT_DIR": str(output_dir),
        "TEMPERATURES": [1.0],
        "NUM_SAMPLES": samples,
        "EVALUATOR_NUM_EXAMPLES": None,
        "RERANK": True,
        "REWARD_CHECKPOINT_PATH": str(folder / reward),
    }
    given = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    if not (output_dir / "sweep.csv").exists():
        command = [sys.executable, "-m", "lmirl_jax", "sweep", "--gin_file=gin/runs/sweep.gin", *given]
        subprocess.run(command, stdout=sys.stderr, check=True)
    with open(output_dir / "sweep.csv", encoding="utf-8", newline="") as file:
        return {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}


def accuracies(metrics: dict[str, float], n: int) -> dict[str, float]:
    """The accuracies of one sample, of any of n, of the plain majority, and of the answer that each score chooses."""
    metric_names = {
        "one sample": "accuracy",
        "any of n": f"pass_at_{n}",
        "majority": f"maj_at_{n}",
        "best by return": f"best_of_{n}_by_return/accuracy",
        "best by normalised return": f"best_of_{n}_by_normalised_return/accuracy",
        "best by log-likelihood": f"best_of_{n}_by_log_likelihood/accuracy",
        "majority weighted by return": f"weighted_maj_at_{n}_by_return",
        "majority weighted by log-likelihood": f"weighted_maj_at_{n}_by_log_likelihood",
    }
    return {name: metrics[metric] for name, metric in metric_names.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--samples", type=int, default=16)
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    results = {}
    for label, name in REWARDS.items():
        runs = {seed: seeds[i - 1] if label == ANOTHER else seed for i, seed in enumerate(seeds)}
        by_seed = [
            accuracies(sweep(asked.folder, seed, f"{name}-{runs[seed]}", asked.samples), asked.samples)
            for seed in seeds
        ]
        results[label] = {
            measure: {
                "mean": round(sum(values[measure] for values in by_seed) / len(by_seed), 4),
                "seeds": [round(values[measure], 4) for values in by_seed],
            }
            for measure in by_seed[0]
        }
    head = provenance(asked)
    print(json.dumps(head | {"samples ranked by": results}, indent=1))


if __name__ == "__main__":
    main()

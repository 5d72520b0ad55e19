"""Fine-tunes a pretrained model on few demonstrations by several objectives, each tuned alike, and compares their fronts.

    launch/local.sh python benchmarks/small_data.py --folder=/tmp/small_data [--objectives=mle,gem,...] [--demonstrations=300]
        [--seeds=5] [--rates=1e-4,3e-4,1e-3,3e-3]

Every run is gin/runs/quickstart.gin: a tiny T5 that knows number_paths learns number_paths_large. With the first seed each
objective tries every learning rate, and keeps the one whose run reaches the highest BEST_METRIC on the validation split; the
other seeds (of the demonstrations and of training) use that rate. Then `lmirl sweep` reads the runs on the test split, with
each of the READINGS, over temperatures. Finished runs and cells are not made again. Prints a JSON object: the validation
curves of all runs, the chosen rates, and for each reading the fronts with their intervals, and how each objective compares
with MLE.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from provenance import provenance

from lmirl_jax.cli.side_by_side import run_side_by_side

OBJECTIVES = {
    "mle": ("MLE", "mle", {}),
    "gem": ("GEM", "gem", {}),
    "iqlearn_.02": ("IQLearn, lambda .02", "iqlearn", {"TD_WEIGHT": 0.02}),
    "iqlearn_.1": ("IQLearn, lambda .1", "iqlearn", {"TD_WEIGHT": 0.1}),
    "iqlearn_.5": ("IQLearn, lambda .5", "iqlearn", {"TD_WEIGHT": 0.5}),
    "smoothing": ("MLE, label smoothing .1", "mle", {"LABEL_SMOOTHING": 0.1}),
    "entropy": ("entropy-regularised MLE, .1", "entropy_regularised_mle", {"ENTROPY_WEIGHT": 0.1}),
    "dft": ("DFT", "dft", {}),
    "mle_dropout": ("MLE, dropout .3", "mle", {"DROPOUT_RATE": 0.3}),
    "mle_decay": ("MLE, weight decay .1", "mle", {"training.adamw.weight_decay": 0.1}),
}
TASK = "eval/number_paths_large/"
CURVE = {
    "loss": "eval/loss_mle",
    "valid": f"{TASK}sampled/valid",
    "distinct_valid": f"{TASK}sampled/distinct_valid",
    "self_bleu": f"{TASK}sampled/self_bleu",
}
# Which evaluation each run is read at: the best by the rule, the lowest loss on the validation split, and the last one.
READINGS: dict[str, Callable[[list[dict]], dict]] = {
    "best": lambda curve: max(curve, key=lambda at: at["distinct_valid"]),
    "lowest_loss": lambda curve: min(curve, key=lambda at: at["loss"]),
    "last": lambda curve: curve[-1],
}


def words(command: str, files: list[str], settings: dict) -> list[str]:
    """The words of a command after `lmirl`."""
    files = [f"--gin_file=gin/{name}.gin" for name in files]
    return [command, *files, *(f"--gin.{name}={value!r}" for name, value in settings.items())]


class Study:
    """The runs of the study in a folder."""

    def __init__(self, asked: argparse.Namespace):
        self.folder, self.asked = asked.folder, asked
        self.rates = [float(rate) for rate in asked.rates.split(",")]
        self.objectives = asked.objectives.split(",")

    def model_dir(self, objective: str, rate: float, seed: int) -> Path:
        return self.folder / f"{objective}-{self.asked.demonstrations}-{rate:g}-{seed}"

    def train(self, runs: Iterable[tuple[str, float, int]]) -> None:
        """Trains the runs that are not finished, side by side."""
        commands = {}
        for objective, rate, seed in runs:
            model_dir = self.model_dir(objective, rate, seed)
            _, file, settings = OBJECTIVES[objective]
            settings = settings | {
                "MODEL_DIR": str(model_dir),
                "TRAIN_NUM_EXAMPLES": self.asked.demonstrations,
                "LEARNING_RATE": rate,
                "RANDOM_SEED": seed,
                "TRAIN_STEPS": self.asked.steps,
                "EVAL_PERIOD": 150,
                "CHECKPOINT_PERIOD": 150,
                "KEEP_CHECKPOINTS": None,
            }
            if not (model_dir / "checkpoints" / str(self.asked.steps)).exists():
                commands[model_dir.name] = words("train", ["runs/quickstart", f"objectives/{file}"], settings)
        if commands:
            run_side_by_side(commands, {})

    def curve(self, objective: str, rate: float, seed: int) -> list[dict]:
        """The evaluations of a run on the validation split."""
        lines = (self.model_dir(objective, rate, seed) / "metrics.jsonl").read_text().splitlines()
        evaluated = [line for line in map(json.loads, lines) if CURVE["loss"] in line]
        return [
            {"step": line["step"]} | {name: round(line[key], 4) for name, key in CURVE.items()}
            for line in evaluated
        ]

    def choose_rate(self, objective: str) -> float:
        """The learning rate whose run, with the first seed, is best on the validation split."""
        best = READINGS["best"]
        return max(self.rates, key=lambda rate: best(self.curve(objective, rate, 0))["distinct_valid"])

    def read(self, name: str, chosen: dict[str, float]) -> dict:
        """Sweeps over the checkpoints that a reading chooses; cells are shared between readings."""
        paths = {}
        for objective, rate in chosen.items():
            steps = [
                READINGS[name](self.curve(objective, rate, seed))["step"] for seed in range(self.asked.seeds)
            ]
            paths[OBJECTIVES[objective][0]] = [
                str(self.model_dir(objective, rate, seed) / "checkpoints" / str(step))
                for seed, step in enumerate(steps)
            ]
        folder = self.folder / f"front-{self.asked.demonstrations}"
        sweep = words("sweep", ["runs/quickstart_sweep"], {"RUNS": paths, "OUTPUT_DIR": str(folder)})
        run_side_by_side({name: sweep}, {})
        found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        (folder / "report.html").rename(folder / f"{name}.html")
        steps = {label: [int(Path(path).name) for path in of_label] for label, of_label in paths.items()}
        del found["cells"]  # Those of single seeds are on disk.
        return {"steps": steps} | found

    def main(self) -> dict:
        self.folder.mkdir(parents=True, exist_ok=True)
        tried = [(objective, rate, 0) for objective in self.objectives for rate in self.rates]
        self.train(tried)
        chosen = {objective: self.choose_rate(objective) for objective in self.objectives}
        print(f"learning rates: {chosen}", file=sys.stderr)
        repeated = [
            (objective, rate, seed)
            for seed in range(1, self.asked.seeds)
            for objective, rate in chosen.items()
        ]
        self.train(repeated)
        return {
            "learning_rates": {OBJECTIVES[objective][0]: rate for objective, rate in chosen.items()},
            "validation": [
                {"objective": OBJECTIVES[objective][0], "rate": rate, "seed": seed}
                | {"curve": self.curve(objective, rate, seed)}
                for objective, rate, seed in tried + repeated
            ],
            "readings": {name: self.read(name, chosen) for name in READINGS},
        }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--objectives", default="mle,gem,iqlearn_.02,iqlearn_.1,iqlearn_.5")
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", default="1e-4,3e-4,1e-3,3e-3")
    parser.add_argument("--steps", type=int, default=1500, help="updates of each run")
    return parser.parse_args()


if __name__ == "__main__":
    asked = options()
    print(json.dumps(provenance(asked) | Study(asked).main(), indent=1))

"""Fine-tunes a pretrained model on few demonstrations by several objectives, each tuned alike, and compares their fronts.

    launch/local.sh python benchmarks/small_data.py --folder=/tmp/small_data [--objectives=mle,gem,...] [--demonstrations=300]
        [--seeds=5] [--rates=1e-4,3e-4,1e-3,3e-3] [--online]

Every run is gin/runs/quickstart.gin: a tiny T5 that knows number_paths learns number_paths_large. With the first seed each
objective tries every learning rate, and keeps the one whose run reaches the highest BEST_METRIC on the validation split; the
other seeds (of the demonstrations and of training) use that rate. Then `lmirl sweep` reads the runs on the test split, with
each of the READINGS, over temperatures. With --online each run of MLE goes on by online IQLearn from its best checkpoint,
for 300 updates, and is compared with it. Finished runs and cells are not made again. Prints a JSON object: the validation
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


def best(curve: list[dict]) -> dict:
    """The evaluation that the rule chooses."""
    return max(curve, key=lambda at: at["distinct_valid"])


# Which evaluation each run is read at, and the settings of the sweep there.
READINGS: dict[str, tuple[Callable[[list[dict]], dict], dict]] = {
    "best": (best, {}),
    "best_top_p": (best, {"TOP_PS": [0.9]}),
    "lowest_loss": (lambda curve: min(curve, key=lambda at: at["loss"]), {}),
    "last": (lambda curve: curve[-1], {}),
}
# How often each run is evaluated; all its checkpoints are kept.
EVALUATED = {"EVAL_PERIOD": 150, "CHECKPOINT_PERIOD": 150, "KEEP_CHECKPOINTS": None}
ONLINE = "online IQLearn from MLE"
ONLINE_STEPS = 300


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
                **EVALUATED,
            }
            if not (model_dir / "checkpoints" / str(self.asked.steps)).exists():
                commands[model_dir.name] = words("train", ["runs/quickstart", f"objectives/{file}"], settings)
        if commands:
            run_side_by_side(commands, {})

    def choose_rate(self, objective: str) -> float:
        """The learning rate whose run, with the first seed, is best on the validation split."""
        runs = {rate: self.model_dir(objective, rate, 0) for rate in self.rates}
        return max(runs, key=lambda rate: best(curve(runs[rate]))["distinct_valid"])

    def go_on_online(self, starts: list[Path]) -> list[Path]:
        """Trains online IQLearn from the best checkpoint of each of these runs, on the same demonstrations."""
        runs = {start: start.with_name(f"online-{start.name}") for start in starts}
        commands = {}
        for start, model_dir in runs.items():
            checkpoint = start / "checkpoints" / str(best(curve(start))["step"])
            settings = {
                "MODEL_DIR": str(model_dir),
                "INITIAL_CHECKPOINT_PATH": str(checkpoint),
                "TRAIN_STEPS": ONLINE_STEPS,
                "LEARNING_RATE": 1e-4,
                "WARMUP_STEPS": 20,
                "DROPOUT_RATE": 0.1,
                "EVAL_TEMPERATURE": [0.25, 0.5, 0.75, 1.0],
                "EVALUATOR_NUM_EXAMPLES": None,
                **EVALUATED,
                "EVAL_PERIOD": 100,
                "CHECKPOINT_PERIOD": 100,
            }
            if not (model_dir / "checkpoints" / str(ONLINE_STEPS)).exists():
                commands[model_dir.name] = words("train", ["runs/online_iqlearn"], settings)
        if commands:
            run_side_by_side(commands, {})
        return list(runs.values())

    def read(self, name: str, runs: dict[str, list[Path]]) -> dict:
        """Sweeps over the checkpoints that a reading chooses; cells are shared between readings."""
        choose, settings = READINGS[name]
        steps = {label: [choose(curve(run))["step"] for run in of_label] for label, of_label in runs.items()}
        paths = {
            label: [
                str(run / "checkpoints" / str(step)) for run, step in zip(of_label, steps[label], strict=True)
            ]
            for label, of_label in runs.items()
        }
        folder = self.folder / f"front-{self.asked.demonstrations}"
        settings = {"RUNS": paths, "OUTPUT_DIR": str(folder)} | settings
        run_side_by_side({name: words("sweep", ["runs/quickstart_sweep"], settings)}, {})
        found = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        (folder / "report.html").rename(folder / f"{name}.html")
        del found["cells"]  # Those of single seeds are on disk.
        return {"steps": steps} | found

    def main(self) -> dict:
        self.folder.mkdir(parents=True, exist_ok=True)
        seeds = range(self.asked.seeds)
        tried = [(objective, rate, 0) for objective in self.objectives for rate in self.rates]
        self.train(tried)
        chosen = {objective: self.choose_rate(objective) for objective in self.objectives}
        print(f"learning rates: {chosen}", file=sys.stderr)
        repeated = [(objective, rate, seed) for seed in seeds[1:] for objective, rate in chosen.items()]
        self.train(repeated)
        runs = {
            OBJECTIVES[objective][0]: [self.model_dir(objective, rate, seed) for seed in seeds]
            for objective, rate in chosen.items()
        }
        result = {
            "learning_rates": {OBJECTIVES[objective][0]: rate for objective, rate in chosen.items()},
            "validation": [
                {"objective": OBJECTIVES[objective][0], "rate": rate, "seed": seed}
                | {"curve": curve(self.model_dir(objective, rate, seed))}
                for objective, rate, seed in tried + repeated
            ],
            "readings": {name: self.read(name, runs) for name in READINGS},
        }
        if self.asked.online:
            first = next(iter(runs))
            further = {first: runs[first], ONLINE: self.go_on_online(runs[first])}
            result["online"] = self.read("best", further)
        return result


def curve(run: Path) -> list[dict]:
    """The evaluations of a run on the validation split."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    evaluated = [line for line in map(json.loads, lines) if CURVE["loss"] in line]
    return [
        {"step": line["step"]} | {name: round(line[key], 4) for name, key in CURVE.items()}
        for line in evaluated
    ]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--objectives", default="mle,gem,iqlearn_.02,iqlearn_.1,iqlearn_.5")
    parser.add_argument("--demonstrations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", default="1e-4,3e-4,1e-3,3e-3")
    parser.add_argument(
        "--online", action="store_true", help="also go on with online IQLearn from the first objective"
    )
    parser.add_argument("--steps", type=int, default=1500, help="updates of each run")
    return parser.parse_args()


if __name__ == "__main__":
    asked = options()
    print(json.dumps(provenance(asked) | Study(asked).main(), indent=1))

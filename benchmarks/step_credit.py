"""Learns from a policy's wrong answers, by preferences of whole answers and of steps, on `operation_chains`.

    launch/local.sh python benchmarks/step_credit.py --folder=/tmp/step_credit [--sizes=2000] [--seeds=0,1] [--arms=rft,...]
        [--start_updates=3000] [--updates=300]

For every size and seed: a tiny T5 is trained from random parameters on the first SIZE problems; 8 answers to each of them are
sampled at temperature 1, and a checker of the last number says which are right. Every arm then goes on from that run for the
same number of updates. `sft` is more of the same demonstrations, `rft` has the right samples beside them, `dpo` prefers a right
sample to a wrong one, `step_dpo_*` prefers it to the beginning of a wrong one up to the step with the lowest score. Scores: the
gold checker's (the first wrong step), random ones, and those of checkpoints that learnt from the samples and their last numbers
alone: `log_prob` of the first run, `log_ratio` of `rft_only` (right samples alone) to it, `iqlearn` (the progress of values of
IQLearn on right samples), `labelled` (that of labelled IQLearn on all) and `prefix` (a reward model of labels). `labelled` and
`rft_only` are arms too.

Everything is one `lmirl` command after the other; what is finished is not made again. Prints a JSON object: of each run the share
of right last numbers on 500 test problems, greedy and of 4 samples; and for each score how often its lowest step is the first
wrong one, with an interval over problems, and its AUC of first wrong steps against right ones, over the wrong samples.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from lmirl_jax.labelled import first_pit
from lmirl_jax.rewards import read_scored, step_scores
from lmirl_jax.statistics.proportions import mean_interval
from lmirl_jax.tasks import operation_chains

TINY, MLE = "models/t5_1_1/tiny", "objectives/mle"
LENGTHS = {"inputs": 14, "targets": 64}
CHECKER = "lmirl_jax.tasks.operation_chains.reward"
SAMPLES, TEST_SAMPLES = 8, 4
# Of each score of steps: the run that gives it, the numbers of its tokens, and the reference.
SCORES = {
    "log_prob": ("start", "log_prob", None),
    "log_ratio": ("rft_only", "log_ratio", "start"),
    "iqlearn": ("iqlearn", "value", None),
    "labelled": ("labelled", "value", None),
    "prefix": ("prefix", "reward", None),
}
FUNCTIONS = {"gold": "step_scores", "random": "random_step_scores"}
ARMS = ("sft", "rft", "rft_only", "labelled", "dpo", *(f"step_dpo_{name}" for name in (*FUNCTIONS, *SCORES)))
LIKELIHOOD = {"LEARNING_RATE": 3e-4, "WARMUP_STEPS": 20, "BATCH_SIZE": 64}
PREFERENCES = {"LEARNING_RATE": 1e-4, "WARMUP_STEPS": 20, "BATCH_SIZE": 64}
# What each run beside DPO's learns from, with which files.
LEARNT: Mapping[str, tuple[str, list[str], dict[str, Any]]] = {
    "sft": ("problems", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "rft": ("both", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "rft_only": ("right", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "iqlearn": ("right", ["runs/finetune", TINY, "objectives/iqlearn"], LIKELIHOOD | {"TD_WEIGHT": 0.1}),
    "labelled": ("labels", ["runs/labelled_iqlearn", TINY], LIKELIHOOD | {"TD_WEIGHT": 0.5}),
    "prefix": ("labels", ["runs/reward_model", TINY], LIKELIHOOD | {"FROM_PREFERENCES": False}),
}


class Cell:
    """All that belongs to one number of problems and one seed."""

    def __init__(self, asked: argparse.Namespace, size: int, seed: int):
        self.asked, self.size, self.seed = asked, size, seed
        self.folder = asked.folder / f"{size}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        times = self.folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def lmirl(self, name: str, command: str, files: list[str], settings: Mapping[str, Any]) -> None:
        given = [f"--gin_file=gin/{file}.gin" for file in files]
        for key, value in settings.items():
            given.append(f"--gin.{key}={value if str(value).startswith('@') else repr(value)}")
        began = time.monotonic()
        with open(self.folder / f"{name}.log", "a") as log:
            subprocess.run(
                [sys.executable, "-m", "lmirl_jax", command, *given], stdout=log, stderr=log, check=True
            )
        self.seconds[name] = round(time.monotonic() - began, 1)
        (self.folder / "seconds.json").write_text(json.dumps(self.seconds))
        print(f"{self.folder.name}: {name}: {self.seconds[name]:.0f} s", file=sys.stderr, flush=True)

    def train(self, name: str, data: str, files: list[str], settings: Mapping[str, Any], steps: int) -> None:
        if (self.folder / name / "checkpoints" / str(steps)).exists():
            return
        common = {
            "MODEL_DIR": str(self.folder / name),
            "DATA": str(self.file(data)),
            "TRAIN_STEPS": steps,
            "CHECKPOINT_PERIOD": steps,
            "LOG_PERIOD": 50,
            "EVALUATIONS": [],
            "TASK_FEATURE_LENGTHS": LENGTHS,
            "DROPOUT_RATE": 0.0,
            "REMAT": "none",
            "RANDOM_SEED": self.seed,
            "TRUNCATE": True,
        }
        self.lmirl(name, "train", files, common | dict(settings))

    def infer(self, run: str, prompts: str, name: str, samples: int, temperature: float) -> Path:
        path = self.file(name)
        settings = {
            "CHECKPOINT_PATH": str(self.folder / run),
            "PROMPTS": str(self.file(prompts)),
            "OUTPUT_PATH": str(path),
            "NUM_SAMPLES": samples,
            "TEMPERATURE": temperature,
            "EVAL_BATCH_SIZE": 64,
            "SAMPLING_SEED": self.seed,
        }
        if not path.exists():
            self.lmirl(name, "infer", ["runs/infer"], settings)
        return path

    def label(self, name: str, settings: Mapping[str, Any]) -> None:
        given = {
            "ANSWERS": str(self.file("samples")),
            "OUTPUT_PATH": str(self.file(name)),
            "CHECKER": CHECKER,
        }
        if not self.file(name).exists():
            self.lmirl(name, "label", ["runs/label"], given | {"RANDOM_SEED": self.seed} | dict(settings))

    def start(self) -> None:
        """The first run, its samples, and the files that arms learn from."""
        write(self.file("problems"), rows(operation_chains.examples("train")[: self.size]))
        write(self.file("test"), rows(operation_chains.examples("test")))
        first = {"LEARNING_RATE": 1e-3, "WARMUP_STEPS": 100, "BATCH_SIZE": 64}
        files = ["runs/finetune", TINY, MLE]
        self.train("start", "problems", files, first, self.asked.start_updates)
        self.infer("start", "problems", "samples", SAMPLES, 1.0)
        self.label("labels", {"FORM": "labels"})
        right = [row for row in read(self.file("labels")) if row["label"]]
        right = [{"inputs": row["inputs"], "targets": row["targets"]} for row in right]
        write(self.file("right"), right)
        write(self.file("both"), [*read(self.file("problems")), *right])

    def learn(self, name: str) -> None:
        data, files, settings = LEARNT[name]
        start = {"INITIAL_CHECKPOINT_PATH": str(self.folder / "start")}
        self.train(name, data, files, start | settings, self.asked.updates)

    def score(self, name: str) -> Path:
        """The scores of all samples' tokens under the run that gives this score of steps."""
        run, _, reference = SCORES[name]
        if run != "start":
            self.learn(run)
        path = self.file(f"scored_{name}")
        settings = {
            "CHECKPOINT_PATH": str(self.folder / run),
            "DATA": str(self.file("samples")),
            "OUTPUT_PATH": str(path),
            "SCORE_METRICS": False,
        }
        if reference is not None:
            settings["REFERENCE_PATH"] = str(self.folder / reference)
        if not path.exists():
            self.lmirl(path.stem, "score", ["runs/score"], settings)
        return path

    def arm(self, name: str) -> None:
        """Trains an arm."""
        if name in LEARNT:
            self.learn(name)
            return
        pairs = {"PAIRS_PER_PROMPT": 4}
        if name == "dpo":
            self.label("pairs_dpo", pairs | {"FORM": "preferences"})
        else:
            scores = name.removeprefix("step_dpo_")
            form = pairs | {"FORM": "step_preferences"}
            if scores in FUNCTIONS:
                self.label_by_function(f"pairs_{name}", form, FUNCTIONS[scores])
            else:
                source = {"ANSWERS": str(self.score(scores)), "STEP_SCORES": SCORES[scores][1]}
                self.label(f"pairs_{name}", form | source)
        run = "runs/dpo" if name == "dpo" else "runs/step_dpo"
        start = {"INITIAL_CHECKPOINT_PATH": str(self.folder / "start")}
        self.train(name, f"pairs_{name}", [run, TINY], start | PREFERENCES, self.asked.updates)

    def label_by_function(self, name: str, form: Mapping[str, Any], function: str) -> None:
        gin = self.folder / "operation_chains.gin"
        imports = "from __gin__ import dynamic_registration\nfrom lmirl_jax.tasks import operation_chains\n"
        gin.write_text(f"{imports}STEP_SCORES = @operation_chains.{function}\n")
        given = {
            "ANSWERS": str(self.file("samples")),
            "OUTPUT_PATH": str(self.file(name)),
            "CHECKER": CHECKER,
        }
        if not self.file(name).exists():
            words = [f"--gin_file={gin}"]
            words += [f"--gin.{key}={value!r}" for key, value in (given | dict(form)).items()]
            command = [sys.executable, "-m", "lmirl_jax", "label", "--gin_file=gin/runs/label.gin", *words]
            with open(self.folder / f"{name}.log", "a") as log:
                subprocess.run(command, stdout=log, stderr=log, check=True)

    def accuracy(self, run: str) -> dict[str, float]:
        """Shares of right last numbers, and of wholly right answers, on the test problems."""
        found = {}
        for kind, samples, temperature in (("greedy", 1, 0.0), ("sampled", TEST_SAMPLES, 1.0)):
            path = self.infer(run, "test", f"test_{kind}_{run}", samples, temperature)
            chains = [
                operation_chains.check(row["inputs"], text) for row in read(path) for text in row["samples"]
            ]
            found[kind] = round(sum(chain.correct for chain in chains) / len(chains), 4)
            found[f"{kind}_valid"] = round(sum(chain.valid for chain in chains) / len(chains), 4)
        return found

    def judge_scores(self, name: str) -> dict[str, Any]:
        """How well a score of steps finds the first wrong step of the wrong samples that have one and two steps or more."""
        wrong, right, chance = [], [], []
        hits: dict[int, list[bool]] = {}
        for answer in read_scored(self.score(name)):
            gold = operation_chains.check(answer.inputs, answer.targets)
            if gold.correct or all(gold.steps) or len(gold.steps) < 2:
                continue
            scores = step_scores(answer, SCORES[name][1])
            if len(scores) != len(gold.steps):
                continue
            first = gold.steps.index(False)
            hits.setdefault(answer.example, []).append(first_pit(scores) == first)
            chance.append(1 / len(scores))
            wrong.append(scores[first])
            right += [score for score, good in zip(scores, gold.steps) if good]
        of_problems = [float(np.mean(found)) for found in hits.values()]
        return {
            "problems": len(hits),
            "answers": len(wrong),
            "lowest_is_first_wrong": round(float(np.mean(of_problems)), 4),
            "interval": [None if end is None else round(end, 4) for end in mean_interval(of_problems)],
            "by_chance": round(float(np.mean(chance)), 4),
            "auc": round(share_above(right, wrong), 4),
        }


def share_above(high: list[float], low: list[float]) -> float:
    """The share of pairs in which the first is above the second; equal ones count half."""
    ordered = np.sort(high)
    sides = [np.searchsorted(ordered, low, side).mean() for side in ("left", "right")]
    return float(1 - sum(sides) / 2 / len(ordered))


def rows(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"inputs": inputs, "targets": targets} for inputs, targets in pairs]


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path) as lines:
        yield from map(json.loads, lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", default="2000")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--start_updates", type=int, default=3000)
    parser.add_argument("--updates", type=int, default=300)
    return parser.parse_args()


def main() -> None:
    asked, cells = options(), {}
    for size in map(int, asked.sizes.split(",")):
        for seed in map(int, asked.seeds.split(",")):
            cell = Cell(asked, size, seed)
            cell.start()
            arms, scores = {"start": cell.accuracy("start")}, {}
            for name in asked.arms.split(","):
                cell.arm(name)
                arms[name] = cell.accuracy(name)
                if name.removeprefix("step_dpo_") in SCORES:
                    scores[name.removeprefix("step_dpo_")] = cell.judge_scores(name.removeprefix("step_dpo_"))
            counts = {name: sum(1 for _ in read(cell.file(name))) for name in ("labels", "right")}
            cells[f"{size}-{seed}"] = {
                "rows": counts,
                "arms": arms,
                "scores": scores,
                "seconds": cell.seconds,
            }
    print(json.dumps(provenance(asked) | {"cells": cells}, indent=1))


if __name__ == "__main__":
    main()

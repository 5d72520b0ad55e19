"""What the experiments on `operation_chains` share: one number of problems and one seed, as `lmirl` commands in a folder.

What is finished is not made again, so that a killed experiment goes on, and two of them may share a folder and its first run.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmirl_jax.statistics.bootstrap import bootstrap_interval
from lmirl_jax.tasks import operation_chains

TINY, MLE = "models/t5_1_1/tiny", "objectives/mle"
LENGTHS = {"inputs": 14, "targets": 64}
CHECKER = "lmirl_jax.tasks.operation_chains.reward"
SAMPLES, TEST_SAMPLES = 8, 4
LIKELIHOOD = {"LEARNING_RATE": 3e-4, "WARMUP_STEPS": 20, "BATCH_SIZE": 64}
FIRST = {"LEARNING_RATE": 1e-3, "WARMUP_STEPS": 100, "BATCH_SIZE": 64}
Rows = list[dict[str, Any]]


class ChainRuns:
    """The runs and files of one number of problems and one seed."""

    def __init__(self, folder: Path, size: int, seed: int):
        self.size, self.seed = size, seed
        self.folder = folder / f"{size}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        times = self.folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(times.read_text()) if times.exists() else {}

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def lmirl(self, name: str, command: str, files: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Runs a command; `files` are gin files of the package, or paths."""
        given = [f"--gin_file={file if file.endswith('.gin') else f'gin/{file}.gin'}" for file in files]
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

    def train(
        self, name: str, data: str, files: Sequence[str], settings: Mapping[str, Any], steps: int
    ) -> None:
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

    def train_on(
        self, name: str, data: str, files: Sequence[str], settings: Mapping[str, Any], steps: int
    ) -> None:
        """Goes on from the first run."""
        self.train(
            name, data, files, {"INITIAL_CHECKPOINT_PATH": str(self.folder / "start")} | dict(settings), steps
        )

    def infer(
        self,
        run: str,
        prompts: str,
        name: str,
        samples: int,
        temperature: float,
        more: Mapping[str, Any] | None = None,
    ) -> Path:
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
            self.lmirl(name, "infer", ["runs/infer"], settings | dict(more or {}))
        return path

    def score(self, name: str, run: str, answers: str, reference: str | None = None) -> Path:
        """The numbers of the tokens of all answers of a file under a run."""
        path = self.file(name)
        settings = {
            "CHECKPOINT_PATH": str(self.folder / run),
            "DATA": str(self.file(answers)),
            "OUTPUT_PATH": str(path),
            "SCORE_METRICS": False,
        }
        if reference is not None:
            settings["REFERENCE_PATH"] = str(self.folder / reference)
        if not path.exists():
            self.lmirl(name, "score", ["runs/score"], settings)
        return path

    def label(self, name: str, settings: Mapping[str, Any], files: Sequence[str] = ()) -> None:
        given = {
            "ANSWERS": str(self.file("samples")),
            "OUTPUT_PATH": str(self.file(name)),
            "CHECKER": CHECKER,
            "RANDOM_SEED": self.seed,
        }
        if not self.file(name).exists():
            self.lmirl(name, "label", ["runs/label", *files], given | dict(settings))

    def start(self, updates: int, spurious: bool = False) -> None:
        """The first run, on answers to the problems, some with lines of no use or none, and its samples for them."""
        examples = operation_chains.spurious_examples if spurious else operation_chains.examples
        write(self.file("problems"), rows(examples("train")[: self.size]))
        write(self.file("test"), rows(operation_chains.examples("test")))
        self.train("start", "problems", ["runs/finetune", TINY, MLE], FIRST, updates)
        self.infer("start", "problems", "samples", SAMPLES, 1.0)

    def accuracy(self, run: str, base: str | None = None) -> dict[str, Any]:
        """Shares of right last numbers, and of wholly right answers, on the test problems.

        `sampled_more` is by how much more samples are right than those of `base`, with its 95% interval over problems.
        """
        found: dict[str, Any] = {}
        for kind in ("greedy", "sampled"):
            shares = self.shares(run, kind)
            found[kind], found[f"{kind}_valid"] = (round(float(share), 4) for share in shares.mean(axis=0))
        if base is not None:
            more = (self.shares(run, "sampled") - self.shares(base, "sampled"))[:, 0]
            ends = bootstrap_interval(more)
            found["sampled_more"] = [None if x is None else round(float(x), 4) for x in (more.mean(), *ends)]
        return found

    def shares(self, run: str, kind: str) -> np.ndarray:
        """For each test problem the shares of its answers with the right last number, and of the wholly right ones."""
        samples, temperature = {"greedy": (1, 0.0), "sampled": (TEST_SAMPLES, 1.0)}[kind]
        path = self.infer(run, "test", f"test_{kind}_{run}", samples, temperature)
        of_problems = []
        for row in read(path):
            chains = [operation_chains.check(row["inputs"], text) for text in row["samples"]]
            of_problems.append(np.mean([(chain.correct, chain.valid) for chain in chains], axis=0))
        return np.array(of_problems)


def rows(pairs: Sequence[tuple[str, str]]) -> Rows:
    return [{"inputs": inputs, "targets": targets} for inputs, targets in pairs]


def write(path: Path, lines: Rows) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read(path: Path) -> Iterator[dict[str, Any]]:
    with open(path) as lines:
        yield from map(json.loads, lines)

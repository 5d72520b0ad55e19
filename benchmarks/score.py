"""Measures scoring: answers per second, packed and unpacked, and the time, memory and resumption of a long file.

    launch/local.sh python benchmarks/score.py --folder=/tmp/score [--parts=rates,file] [--answers=72] [--batch=8]
        [--inputs=512] [--targets=256] [--runs=5] [--lines=100000]

`rates`: T5 1.1 small with random parameters in float32, answers as long as GSM8K's (prompts of 60 tokens and answers of 100 in
the mean) in rows of 512 and 256; packed and unpacked in turn, medians, and ratios of neighbours in time.

`file`: `lmirl score`, as a user starts it, of a tiny T5 (gin/runs/number_paths.gin, after one update) on 1,000 and on 100,000
lines of number_paths: seconds, answers a second in between (start and compilation fall out of the difference), peak resident
memory; and once more killed with SIGKILL after a third and started again, whose file must be the same byte for byte.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
from etils import epath
from flax import nnx
from provenance import provenance

from lmirl_jax import data, rewards, runs, sharding
from lmirl_jax.models import T5Config

VOCAB, EOS = 32128, 1
SHORT_FILE = 1000
# The standard deviation of the logarithm of the lengths; about that of GSM8K.
SPREAD = 0.4


def make_pairs(asked: argparse.Namespace) -> list[data.Pair]:
    """Random tokens with EOS; lengths are log-normal, with means 60 and 100."""
    random = np.random.default_rng(0)

    def tokens(mean: int, most: int) -> np.ndarray:
        length = mean * random.lognormal(-(SPREAD**2) / 2, SPREAD)
        return np.append(random.integers(3, 32000, min(max(int(length), 2), most) - 1), EOS).astype(np.int32)

    pairs = []
    for number in range(asked.answers):
        prompt, answer = tokens(60, asked.inputs), tokens(100, asked.targets)
        pairs.append(data.Pair("", "", prompt, answer, ((0, 0),) * len(answer), number))
    return pairs


def rates(asked: argparse.Namespace) -> dict:
    mesh, lengths = sharding.make_mesh(), {"inputs": asked.inputs, "targets": asked.targets}
    config = T5Config(VOCAB, dropout_rate=0.0)
    graph, params = nnx.split(config.build(jax.random.key(0)))
    model = runs.Policy(
        epath.Path("random"), config, graph, params, mesh, types.SimpleNamespace(eos_ids=(EOS,)), lengths, 1.0
    )
    pairs = make_pairs(asked)
    scorers = {
        name: rewards.Scorer(model, batch_size=asked.batch, packed=name == "packed")
        for name in ("packed", "unpacked")
    }
    seconds, returns = ({name: [] for name in scorers} for _ in range(2))
    for turn in range(asked.runs + 1):
        for name, scorer in scorers.items():
            began = time.perf_counter()
            returns[name] = [answer.total for answer in scorer(pairs if turn else pairs[: asked.batch])]
            if turn:  # The first compiles.
                seconds[name].append(time.perf_counter() - began)
    apart = max(abs(a - b) for a, b in zip(*returns.values(), strict=True))
    assert apart < 1e-2, apart
    tokens = {
        "prompt": sum(len(p.input_tokens) for p in pairs),
        "answer": sum(len(p.target_tokens) for p in pairs),
    }
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [b / a for a, b in zip(seconds["packed"], seconds["unpacked"], strict=True)]
    return {
        "answers": len(pairs),
        "tokens": tokens,
        "seconds": {name: round(value, 2) for name, value in median.items()},
        "answers_per_second": {name: round(len(pairs) / value, 2) for name, value in median.items()},
        "tokens_per_second": {name: round(sum(tokens.values()) / value) for name, value in median.items()},
        "packed_over_unpacked": round(statistics.median(ratios), 2),
        "largest_difference_of_a_return": round(apart, 6),
    }


def write_file(path: Path, count: int) -> Path:
    from lmirl_jax.tasks import number_paths  # It brings TensorFlow.

    examples = itertools.islice(itertools.cycle(number_paths.examples("train")), count)
    with open(path, "w") as file:
        file.writelines(json.dumps({"inputs": x, "targets": y}) + "\n" for x, y in examples)
    return path


def command(name: str, files: list[str], settings: dict) -> list[str]:
    given = [f"--gin.{key}={value!r}" for key, value in settings.items()]
    return [
        sys.executable,
        "-m",
        "lmirl_jax",
        name,
        *(f"--gin_file=gin/{file}.gin" for file in files),
        *given,
    ]


def score(run: Path, lines: Path, output: Path, kill_after: int | None = None) -> dict:
    """Runs `lmirl score`, and returns its seconds and peak memory. Kills it once the file has `kill_after` lines."""
    output.unlink(missing_ok=True)
    settings = {"CHECKPOINT_PATH": str(run), "DATA": str(lines), "OUTPUT_PATH": str(output)}
    return finish(
        command("score", ["runs/score"], settings), output.with_name(f"{output.name}.partial"), kill_after
    )


def finish(call: list[str], partial: Path, kill_after: int | None) -> dict:
    began = time.perf_counter()
    with open(partial.parent / "score.log", "a") as log:
        process = subprocess.Popen(call, stdout=log, stderr=log)
        while kill_after is not None and lines_of(partial) < kill_after:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.5)
        if kill_after is not None:
            process.kill()
        _, status, usage = os.wait4(process.pid, 0)
    cost = {
        "seconds": round(time.perf_counter() - began, 1),
        "peak_megabytes": round(usage.ru_maxrss / 1024),
    }
    if kill_after is None:
        assert status == 0, status
        return cost
    return cost | {"lines_at_kill": lines_of(partial)}


def lines_of(path: Path) -> int:
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def long_file(asked: argparse.Namespace) -> dict:
    folder, lines = asked.folder, asked.lines
    run = folder / "run"
    if not (run / "checkpoints").exists():
        settings = {"MODEL_DIR": str(run), "TRAIN_STEPS": 1, "EVAL_PERIOD": 1, "EVALUATOR_NUM_EXAMPLES": 1}
        subprocess.run(command("train", ["runs/number_paths", "objectives/mle"], settings), check=True)
    short, long = write_file(folder / "short.jsonl", SHORT_FILE), write_file(folder / "long.jsonl", lines)
    first = score(run, short, folder / "short_scored.jsonl")
    whole = score(run, long, folder / "whole.jsonl")
    killed = score(run, long, folder / "killed.jsonl", kill_after=lines // 3)
    resumed = score(run, long, folder / "killed.jsonl")
    same = (folder / "killed.jsonl").read_bytes() == (folder / "whole.jsonl").read_bytes()
    between = (lines - SHORT_FILE) / (whole["seconds"] - first["seconds"])
    return {
        "lines": {str(SHORT_FILE): first, str(lines): whole},
        "answers_per_second": round(between),
        "killed": killed,
        "resumed": resumed | {"lines": lines_of(folder / "killed.jsonl"), "same_bytes": same},
    }


PARTS = {"rates": rates, "file": long_file}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    for name, default in {
        "answers": 72,
        "batch": 8,
        "inputs": 512,
        "targets": 256,
        "runs": 5,
        "lines": 100_000,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    head = provenance(asked)
    print(json.dumps(head | {part: PARTS[part](asked) for part in asked.parts.split(",")}, indent=1))


if __name__ == "__main__":
    main()

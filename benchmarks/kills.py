"""Kills lmirl by SIGKILL at random moments, starts it again, and compares all that it leaves with a run that nobody killed.

    launch/local.sh python benchmarks/kills.py [--kills=50] [--seed=0] [--processes=1] [--at_once=1]
        [--out=benchmarks/results/kills_cpu.json]

A tiny T5 is trained on 48 lines of a file for 12 updates, with a checkpoint every 3 and an evaluation every 4 updates; then it
answers and scores 24 prompts, and is converted. Each kill is of one kind, in turn: `train` (in an update), `save`, `evaluate`,
`sample` (lmirl infer), `score`, `convert`. The process dies in the n-th call of a function of that kind, after a random time; n
and the time are drawn from the seed and the number of the kill. Then the same command runs again. It must succeed, from the
newest checkpoint that was complete when the process died, and leave what the uninterrupted run left: bitwise the same parameters,
optimizer state and position, the same metrics in one line a step, and the same files of answers, scores and weights. With several
processes, the last one dies in training, and the others must end by themselves.

All processes share one compilation cache, which the uninterrupted run fills. --out is written after every kill; the same command
goes on from there.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS, PERIOD = 12, 3


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of moment at which a process dies.

    Args:
        command: the command that is killed.
        place: the function, as module:name, in one of whose calls the process dies.
        calls: the number of calls among which one is drawn.
        seconds: the longest time from the beginning of the call.
    """

    command: str
    place: str
    calls: int
    seconds: float


KINDS = {
    "train": Kind("train", "lmirl_jax.training.pending_metrics:PendingMetrics.push", STEPS, 0.05),
    "save": Kind("train", "lmirl_jax.checkpoints.save:Checkpoints.save", STEPS // PERIOD, 0.3),
    "evaluate": Kind("train", "lmirl_jax.training.loop:evaluate", 3, 0.3),
    "sample": Kind("infer", "lmirl_jax.training.progress:Progress.update", 24, 0.02),
    "score": Kind("score", "lmirl_jax.training.progress:Progress.update", 24, 0.02),
    "convert": Kind("convert", "lmirl_jax.exporting:_write_run", 1, 0.5),
}


class Study:
    """The commands of a study and what they leave, in one folder.

    Args:
        folder: the folder of all runs; it is made.
        processes: the number of processes of a training.
    """

    def __init__(self, folder: pathlib.Path, processes: int = 1):
        self.folder, self.processes = folder, processes
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        folder.mkdir(parents=True, exist_ok=True)
        lines = [{"inputs": f"{n}+{n % 5}", "targets": str(n + n % 5)} for n in range(72)]
        for name, rows in (("train", lines[:48]), ("validation", lines[48:])):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text)
        self.whole = folder / "uninterrupted"
        for command in ("train", "infer", "score", "convert"):
            self.run(command, self.whole)

    def arguments(self, command: str, run: pathlib.Path, whole: bool = False) -> list[str]:
        """The arguments of lmirl for a command on a run; answers, scores and conversions are of the uninterrupted run."""
        of = f"--gin.CHECKPOINT_PATH={str(self.whole)!r}"
        if command == "train":
            settings = {
                "MODEL_DIR": str(run),
                "TRAIN_STEPS": STEPS,
                "DATA": str(self.folder / "train.jsonl"),
                "VALIDATION_DATA": str(self.folder / "validation.jsonl"),
                "TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8},
                "BATCH_SIZE": 8,
                "CHECKPOINT_PERIOD": PERIOD,
                "EVAL_PERIOD": 4,
                "EVAL_STEPS": 1,
                "EVALUATOR_NUM_EXAMPLES": 8,
                "WARMUP_STEPS": 4,
                "LEARNING_RATE": 1e-3,
                "models.T5Config.emb_dim": 16,
                "models.T5Config.mlp_dim": 32,
            }
            files = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
            return [command, *files, *(f"--gin.{name}={value!r}" for name, value in settings.items())]
        if command == "convert":
            return [command, of, "--gin.FORMAT='orbax'", f"--gin.OUTPUT_PATH={str(run / 'converted')!r}"]
        batch = "--gin.EVAL_BATCH_SIZE=4" if command == "infer" else "--gin.SCORE_BATCH_SIZE=4"
        output = f"--gin.OUTPUT_PATH={str(run / f'{command}.jsonl')!r}"
        return [command, f"--gin_file=gin/runs/{command}.gin", of, output, batch]

    def run(self, command: str, run: pathlib.Path, *dying: str) -> tuple[int, str]:
        """Runs a command to its end, which must be a success unless it is to die.

        Returns:
            The exit code and the log of the process that is to die, the last one.
        """
        count = self.processes if command == "train" else 1
        program = [sys.executable, "-P", str(ROOT / "benchmarks" / "killed_command.py")]
        address, started = f"localhost:{free_port()}", []
        for index in range(count):
            flags = [
                f"--coordinator_address={address}",
                f"--process_count={count}",
                f"--process_index={index}",
            ]
            dies = dying if index == count - 1 else ()
            called = [*program, *dies, "--", *self.arguments(command, run), *(flags if count > 1 else [])]
            log = open(self.folder / f"{run.name}.log-{index}", "w+b")  # noqa: SIM115
            output = {"stderr": log, "stdout": log}
            started.append((subprocess.Popen(called, env=self.environment, cwd=self.folder, **output), log))
        logs = []
        for process, log in started:
            process.wait(600)
            log.seek(0)
            logs.append(log.read().decode())
            log.close()
        code = started[-1][0].returncode
        if not dying:
            assert code == 0, f"{command} ends with {code}: {logs[-1][-2000:]}"
        return code, logs[0]

    def kill(self, kind: str, seed: int) -> dict[str, Any]:
        """Kills a command once, runs it again, and compares; returns what happened.

        Raises:
            AssertionError: something differs from the uninterrupted run.
        """
        chosen, draw = KINDS[kind], random.Random(f"{kind} {seed}")
        call, seconds = draw.randint(1, chosen.calls), draw.uniform(0, chosen.seconds)
        run = self.folder / f"{kind}-{seed}"
        dying = f"--die={chosen.place},{call},{seconds}"
        code, _ = self.run(chosen.command, run, dying)
        died, complete = code == -signal.SIGKILL, newest_step(run)
        # A conversion that is whole is not made again.
        if chosen.command != "convert" or not (run / "converted").exists():
            _, log = self.run(chosen.command, run)
            if chosen.command == "train" and "nothing to do" not in log:
                found = re.search(r"resuming .* from its checkpoint at step (\d+)", log)
                begun = int(found[1]) if found else 0
                assert begun == complete, f"{complete} was complete, and it went on from {begun}"
        self.compare(chosen.command, run)
        return {"kind": kind, "call": call, "seconds": round(seconds, 4), "killed": died, "step": complete}

    def compare(self, command: str, run: pathlib.Path) -> None:
        """Raises an AssertionError where a run has left other things than the uninterrupted one."""
        if command == "train":
            assert metrics(run) == metrics(self.whole), "other metrics"
            for step in (STEPS - PERIOD, STEPS):
                same_arrays(run / "checkpoints" / str(step), self.whole / "checkpoints" / str(step))
        elif command == "convert":
            (step,) = (self.whole / "converted" / "checkpoints").iterdir()
            same_arrays(run / "converted" / "checkpoints" / step.name, step)
            assert not list(run.glob(".*")), "a temporary folder is left"
        else:
            files = [folder / f"{command}.jsonl" for folder in (run, self.whole)]
            texts = [file.read_bytes() for file in files]
            assert texts[0] == texts[1], f"another {files[0]}"
            assert {path.name for path in run.iterdir()} == {f"{command}.jsonl"}, "files are left over"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def newest_step(run: pathlib.Path) -> int:
    """The step of the newest complete checkpoint of a run; 0 where there is none."""
    from etils import epath

    from lmirl_jax.checkpoints import folders

    finished = folders.finished_steps(epath.Path(run) / "checkpoints")[0]
    return folders.step_of(finished[-1]) if finished else 0


def metrics(run: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times, in their order."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "timing/" not in name} for line in lines]


def same_arrays(first: pathlib.Path, second: pathlib.Path) -> None:
    """Raises an AssertionError where two checkpoints differ in a single bit of their state, or in their position."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    shapes = ocp.PyTreeCheckpointer().metadata(first / "state")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes.item_metadata.tree)
    with ocp.PyTreeCheckpointer() as checkpointer:
        trees = [checkpointer.restore(path / "state", restore_args=as_numpy) for path in (first, second)]
    flat = [jax.tree_util.tree_leaves_with_path(tree) for tree in trees]
    assert [path for path, _ in flat[0]] == [path for path, _ in flat[1]]
    for (path, mine), (_, other) in zip(*flat, strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(other).tobytes(), (
            f"{jax.tree_util.keystr(path)} differs"
        )
    places = [json.loads((path / "data" / "metadata").read_text()) for path in (first, second)]
    assert places[0] == places[1], "another position in the data"


def kills_done(file: pathlib.Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The kills of an earlier call with the same settings, or none."""
    if file is None or not file.exists():
        return {"minutes": 0.0, "kills": []}
    found = json.loads(file.read_text())
    assert found["settings"] == settings, f"{file} has kills with {found['settings']}: name another file"
    return {"minutes": found["minutes"], "kills": found["kills"]}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--at_once", type=int, default=1, help="kills that are tried side by side")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args(arguments)
    # Here, because the tests import this file as no part of a folder.
    from provenance import provenance

    settings = {"seed": options.seed, "processes": options.processes}
    done = kills_done(options.out, settings)
    before, rows, kinds = done["minutes"], done["kills"], list(KINDS)
    with tempfile.TemporaryDirectory() as folder:
        study, began = Study(pathlib.Path(folder), options.processes), time.monotonic()

        def kill(number: int) -> dict[str, Any]:
            return study.kill(kinds[number % len(kinds)], options.seed + number // len(kinds))

        with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
            for row in pool.map(kill, range(len(rows), options.kills)):
                rows.append(row)
                print(len(rows), row, flush=True)
                if options.out is not None:
                    minutes = round(before + (time.monotonic() - began) / 60, 1)
                    write(options.out, provenance(options) | {"settings": settings, "minutes": minutes}, rows)


def write(file: pathlib.Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes the result, a line for each kill."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    file.write_text(json.dumps(head, indent=1).removesuffix("\n}") + f',\n "kills": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])

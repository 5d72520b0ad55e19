"""All commands over 2 and 4 processes: the losses, answers and files of one process with as many devices."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from lmirl_jax.training.metric_writers import read_metrics
from tests.launch.test_real_processes import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


# What the commands leave beside the run.
OUTPUTS = {
    "eval": "run/eval/",
    "infer": "answers.jsonl",
    "score": "scores.jsonl",
    "sweep": "sweep/",
    "report": "report/",
    "convert": "converted",
}
# Gloo says how many it is connected to, from several threads at once: a line may be torn between its parts.
GLOO = re.compile(
    r"(\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks is : )*"
)
COMMANDS = ("train", "eval", "infer", "score", "sweep", "report", "convert")


def run(
    folder: pathlib.Path, count: int, repository, own_caches: bool = False, chosen: tuple[str, ...] = COMMANDS
) -> list[str]:
    """Runs the processes in `folder`/`count`; returns what each has printed."""
    target = folder / str(count)
    target.mkdir()
    address, processes = f"localhost:{free_port()}", []
    for index in range(count):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(repository),
            "LMIRL_CACHE_DIR": str(target / f"cache{index if own_caches else 0}"),
        }
        command = [sys.executable, "-P", "-m", "tests.launch.commands_in_processes"]
        with (target / f"{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, address, str(count), str(index), str(target), *chosen],
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    codes = [process.wait(600) for process in processes]
    logs = [(target / f"{index}.log").read_text() for index in range(count)]
    assert codes == [0] * count, "\n".join(log[-3000:] for log in logs)
    return logs


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository):
    """The results of one process of four devices."""
    folder = tmp_path_factory.mktemp("pod")
    lines = [{"inputs": f"{n}+{n % 5}", "targets": str(n + n % 5)} for n in range(40)]
    for name, rows in (("train", lines[:24]), ("validation", lines[24:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(folder, 1, repository)
    return folder


def lines_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_of(folder: pathlib.Path, chosen: tuple[str, ...]) -> set[str]:
    """The files that the commands leave, but for those of one process, and without the digests of paths in names."""
    others = [OUTPUTS[command] for command in COMMANDS if command in OUTPUTS and command not in chosen]
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    passing = ("events.out", "cache", ".log", "process_", "/d/", *others)
    return {
        re.sub("-[0-9a-f]{12}[.]", ".", name) for name in names if not any(part in name for part in passing)
    }


@pytest.mark.parametrize(("count", "own_caches", "chosen"), [(2, False, COMMANDS), (4, True, ("train",))])
def test_several_processes_leave_what_one_leaves(folder, repository, count, own_caches, chosen):
    """Two run all commands, and four the training with its evaluations and a resumption."""
    logs = run(folder, count, repository, own_caches, chosen)
    one, several = folder / "1", folder / str(count)

    metrics = [read_metrics(epath.Path(path) / "run/metrics.jsonl") for path in (one, several)]
    assert [line["step"] for line in metrics[1]] == [line["step"] for line in metrics[0]]
    for mine, other in zip(*metrics, strict=True):
        for name, value in other.items():
            if not name.startswith("timing/"):
                np.testing.assert_allclose(mine[name], value, rtol=1e-4, atol=1e-5, err_msg=name)

    if "infer" in chosen:
        check_outputs(one, several)

    # Each file is there once, and only the first process has spoken, but for waiting until another has prepared the data.
    assert files_of(several, chosen) == files_of(one, chosen)
    said = [line for log in logs[1:] for line in log.splitlines()]
    expected = ("[SPMD]", "INFO: waiting for another process that prepares")
    others = [line for line in said if not any(words in line for words in expected)]
    assert not [line for line in others if not GLOO.fullmatch(line)]
    (steps,) = {tuple(sorted(os.listdir(path / "run/checkpoints"))) for path in (one, several)}
    assert steps == ("2", "4")


def check_outputs(one: pathlib.Path, several: pathlib.Path) -> None:
    """Greedy answers are the same to the letter, and rewards but for rounding."""
    answers = [[line["tokens"] for line in lines_of(path / "answers.jsonl")] for path in (one, several)]
    assert answers[1] == answers[0]
    scores = [lines_of(path / "scores.jsonl") for path in (one, several)]
    assert [line["targets"] for line in scores[1]] == [line["targets"] for line in scores[0]]
    for mine, other in zip(*scores, strict=True):
        np.testing.assert_allclose(mine["return"], other["return"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "caches"), [(2, 1), (4, 4)])
def test_data_are_prepared_once_for_each_disk(folder, count, caches):
    """Two processes share a folder, and each of four has its own, as machines without a shared disk have."""
    made = [path for path in (folder / str(count)).glob("cache*/*") if path.is_dir()]
    assert len({path.parent for path in made}) == caches
    names = [path.name for path in made]
    assert sorted(names) == sorted(sorted(set(names)) * caches)

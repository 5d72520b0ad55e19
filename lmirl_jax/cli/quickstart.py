"""`lmirl quickstart`: trains a tiny model by MLE and by IQLearn, compares both and writes one report."""

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from lmirl_jax import configuration, evaluation, files, reports, rewards, runs
from lmirl_jax.cli import eval as eval_command
from lmirl_jax.cli import train as train_command
from lmirl_jax.cli.commands import COMMANDS
from lmirl_jax.cli.flags import Flags, parse
from lmirl_jax.statistics.evidence import first_of
from lmirl_jax.tasks import number_paths
from lmirl_jax.training.metric_writers import read_metrics

RUN_FILE = "gin/runs/quickstart.gin"
EVAL_FILE = "gin/runs/quickstart_eval.gin"
RUNS = {"MLE": "mle", "IQLearn": "iqlearn"}
MAINS = {"train": train_command.main, "eval": eval_command.main}


def main(flags: Flags) -> int:
    began = time.monotonic()
    configuration.load(
        [RUN_FILE, *flags.gin_file], flags.gin_bindings, flags.gin_search_paths, complete=False
    )
    directory = files.absolute_path(configuration.macro("MODEL_DIR", "lmirl_quickstart"))
    with files.lock_directory(directory, "MODEL_DIR"):
        _train_and_compare(flags, directory, began)
    return 0


def _train_and_compare(flags: Flags, directory: epath.Path, began: float) -> None:
    commands = []
    for label, objective in RUNS.items():
        run = directory / objective
        for arguments in (_train_arguments(flags, objective, run), _eval_arguments(run)):
            print(f"\n{label}: lmirl {shlex.join(arguments)}", file=sys.stderr, flush=True)
            name, *rest = arguments
            # The only output of this command is the table that compares both runs.
            with contextlib.redirect_stdout(sys.stderr):
                MAINS[name](parse(rest, COMMANDS[name].flags))
            commands.append(f"lmirl {shlex.join(arguments)}")
    _compare(directory, commands, time.monotonic() - began)


def _train_arguments(flags: Flags, objective: str, run: epath.Path) -> list[str]:
    gin_files = [RUN_FILE, *flags.gin_file, f"gin/objectives/{objective}.gin"]
    bindings = [b for b in flags.gin_bindings if b.split("=")[0].strip() != "MODEL_DIR"]
    return [
        "train",
        *(f"--gin_file={file}" for file in gin_files),
        *(f"--gin_search_paths={path}" for path in flags.gin_search_paths),
        *(f"--gin.{name.strip()}={value.strip()}" for name, value in (b.split("=", 1) for b in bindings)),
        f"--gin.MODEL_DIR={str(run)!r}",
    ]


def _eval_arguments(run: epath.Path) -> list[str]:
    return ["eval", f"--gin_file={EVAL_FILE}", f"--gin.CHECKPOINT_PATH={str(run)!r}"]


def _compare(directory: epath.Path, commands: Sequence[str], seconds: float) -> None:
    """Prints the table and the verdict, and writes the report."""
    results = {label: _read_evaluation(directory / name) for label, name in RUNS.items()}
    cells = [
        evaluation.Cell(label, 0, cell["temperature"], cell["metrics"], cell["per_prompt"])
        for label, run_results in results.items()
        for cell in run_results
    ]
    one = next(iter(results.values()))[0]
    over = f"number_paths, {first_of(one['prompts'], one['prompts_available'])} of the validation split"
    verdicts = [evaluation.verdict(cells, diversity=measure) for measure in ("distinct_valid", "self_bleu")]
    report = directory / "report.html"
    reports.quickstart_report(
        report,
        cells=cells,
        losses={label: _losses(directory / name) for label, name in RUNS.items()},
        heatmaps=[_heat_map(label, directory / name) for label, name in RUNS.items()],
        text=reports.PageText(
            "Quickstart: maximum likelihood and IQLearn on the same task",
            verdict=verdicts,
            settings={"Prompts": over, "Commands": list(commands), "Time": f"{seconds:.0f} s"},
            lead="A tiny T5, trained twice from scratch on number_paths: add four numbers in any order, and write the steps.",
        ),
        loss_note="The likelihood part of the loss, -log pi in nats per token, which both objectives have.",
    )
    print(f"{over}\n{evaluation.table(cells)}")
    print("\n".join(["", *verdicts, "", f"report: {report}", f"finished in {seconds:.0f} s"]))


def _read_evaluation(run: epath.Path) -> list[dict[str, Any]]:
    """Reads the results of `lmirl eval` at each temperature."""
    newest = max((run / "eval").glob("*.json"), key=lambda path: path.stem)
    return json.loads(newest.read_text(encoding="utf-8"))


def _losses(run: epath.Path) -> tuple[list[int], list[float]]:
    lines = read_metrics(run / "metrics.jsonl")
    return [int(line["step"]) for line in lines], [line["train/loss_mle"] for line in lines]


def _heat_map(label: str, run: epath.Path) -> reports.HeatMap:
    """The rewards that a run gives to a right answer and to the same answer with one wrong sum."""
    prompt, right = number_paths.examples("validation")[0]
    answers = {"right": right, "wrong": number_paths.with_wrong_sum(right)}
    scores = rewards.score(runs.load(str(run)), prompt, list(answers.values()))
    rows = [
        reports.scored_row(answer, f"{name} answer") for name, answer in zip(answers, scores, strict=True)
    ]
    explanation = "The wrong answer differs in one sum, and goes on consistently from there."
    return reports.HeatMap(f"Rewards of {label}", rows, prompt, explanation)

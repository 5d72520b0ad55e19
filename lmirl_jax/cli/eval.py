"""`lmirl eval`: a checkpoint's answers over a sweep of sampling temperatures, measured."""

import json
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import jax
from etils import epath
from jax.sharding import Mesh

from lmirl_jax import checkpoints, configuration, evaluation, files, runs
from lmirl_jax.argument_rules import GivenByCaller, Is
from lmirl_jax.arguments import Path, check_arguments
from lmirl_jax.cli.configure import configure_from_run
from lmirl_jax.cli.data_sets import ReferencedSplit
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import say, show
from lmirl_jax.evaluation import Answers, Generator
from lmirl_jax.evaluation.evaluator import (
    DatasetWithMetrics,
    Temperatures,
    describe_prompts,
    write_answers,
)
from lmirl_jax.evaluation.front import with_interval
from lmirl_jax.statistics.evidence import pluralise
from lmirl_jax.types import ModelConfig, UserError

NOTATION = (
    "95% intervals over prompts: ± half of one, or both ends where it leans to one side; none: a metric of the whole corpus, or "
    "too few prompts"
)


def main(flags: Flags) -> int:
    checkpoint = configure_from_run(flags, "gin/runs/eval.gin")
    read = {name: configuration.macro(name, None) for name in ("DATA", "VALIDATION_DATA", "VOCABULARY_PATH")}
    show(configuration.with_configuration(evaluate)(checkpoint, read=read))
    return 0


@check_arguments
def evaluate(
    checkpoint: Annotated[epath.Path, GivenByCaller()],
    *,
    model: ModelConfig,
    mesh: Mesh,
    data: Annotated[ReferencedSplit | None, Is(DatasetWithMetrics | None)],
    generator: Generator,
    temperatures: Temperatures,
    output_dir: Path | None = None,
    read: Annotated[Mapping[str, Any], GivenByCaller()] = MappingProxyType({}),
) -> str:
    """Answers every prompt at every temperature, and measures the answers.

    Args:
        checkpoint: the folder of one checkpoint.
        model: the recipe of the network.
        mesh: the devices.
        data: an `EvalDataset`; None where the task lacks the split.
        generator: the generator of answers.
        temperatures: the temperatures of the sweep; 0 always takes the likeliest token.
        output_dir: the folder for TASK-STEP.json (metrics) and TASK-STEP-T*.jsonl (answers); None for the run's eval/.
        read: the files that the command reads, by the names of their settings, which must not be overwritten.

    Returns:
        A table of the metrics, a row a temperature, with their 95% intervals, and over how many of how many prompts they are.
    """
    if data is None:
        raise UserError(
            "the task has no such split to evaluate on: set EVAL_SPLIT (--gin.EVAL_SPLIT=\"'train'\")"
        )
    network = runs.load_network(checkpoint, model, mesh)
    given = output_dir or str(checkpoints.output_folder(checkpoint, "eval", "EVAL_OUTPUT_DIR"))
    stem = f"{data.name}-{checkpoints.step_of(checkpoint):06}"
    outputs = [f"{stem}.json", *(_answers_file(stem, temperature) for temperature in temperatures)]
    files.check_no_input([files.absolute_path(given) / name for name in outputs], read, "EVAL_OUTPUT_DIR")
    folder = files.prepare_directory(given, "EVAL_OUTPUT_DIR")
    cells = []
    for temperature in temperatures:
        began = time.monotonic()
        answers = list(generator(*network, mesh, data, temperature))
        if jax.process_index() == 0:
            write_answers(folder / _answers_file(stem, temperature), answers)
        say("eval", f"{data.name} at temperature {temperature:g}: {time.monotonic() - began:.1f} s")
        cells.append(_cell(data, answers, temperature))
    signatures = evaluation.signatures(data, len(data))
    if jax.process_index() == 0:
        with files.open_atomic(folder / f"{stem}.json") as file:
            json.dump([cell | {"signatures": signatures} for cell in cells], file)
    samples = pluralise(generator.num_samples, "sample")
    over = f"{data.name}, split {data.split}: {describe_prompts(data, len(data))}, {samples} each"
    notes = [f"{name}: {signature}" for name, signature in signatures.items()]
    return "\n".join([str(checkpoint), over, metric_table(cells) + NOTATION, *notes, f"{folder / stem}.json"])


def _answers_file(stem: str, temperature: float) -> str:
    return f"{stem}-T{temperature:g}.jsonl"


def _cell(data: ReferencedSplit, answers: Sequence[Answers], temperature: float) -> dict[str, Any]:
    """The entry of a temperature in the JSON file."""
    metrics, per_prompt = evaluation.measure(data, answers)
    return {
        "temperature": temperature,
        "prompts": len(answers),
        "prompts_available": data.available,
        "metrics": metrics,
        "intervals": evaluation.intervals(data, answers, per_prompt),
        "per_prompt": per_prompt,
    }


def metric_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """The results in aligned columns: the temperature and every metric, with its 95% interval."""
    names = [name for name in cells[0]["metrics"] if all(name in cell["metrics"] for cell in cells)]
    rows = [["temperature", *names]]
    rows += [
        [
            f"{cell['temperature']:g}",
            *(_entry(cell["metrics"][name], cell["intervals"].get(name)) for name in names),
        ]
        for cell in cells
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(text.rjust(w) for text, w in zip(row, widths, strict=True)) + "\n" for row in rows
    )


def _entry(value: float, interval: tuple[float, float] | None) -> str:
    return with_interval(value, *(interval or (None, None)), 3)

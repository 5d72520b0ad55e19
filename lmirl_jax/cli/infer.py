"""`lmirl infer`: a checkpoint's answers to prompts, as JSONL."""

import itertools
import json
import sys
import time
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.cli.configure import configure_from_run
from lmirl_jax.cli.flags import Flags


def main(flags: Flags) -> int:
    checkpoint = configure_from_run(flags, "gin/runs/infer.gin")
    print(configuration.configured(infer)(checkpoint))
    return 0


def infer(
    checkpoint: epath.Path,
    *,
    model: Any,
    mesh: Any,
    data: Any,
    generator: Any,
    temperature: float = 1.0,
    output_path: str | None = None,
) -> epath.Path:
    """Answers every prompt, a line each; the file appears under its name when it is complete.

    Args:
        checkpoint: the folder of one checkpoint.
        model: the recipe of the network.
        mesh: the devices.
        data: an `EvalDataset`; None where the task lacks the split.
        generator: how to sample.
        temperature: of sampling; 0 takes the likeliest token each time.
        output_path: of the JSONL file; None for the run's infer/TASK-SPLIT-STEP.jsonl.

    Returns:
        The path of the file.
    """
    import jax

    from lmirl_jax.evaluation.evaluator import answer_row
    from lmirl_jax.training import checkpoints
    from lmirl_jax.types import UserError

    if data is None:
        raise UserError("the task has no such split: set INFER_SPLIT (--gin.INFER_SPLIT=\"'train'\")")
    graph, params = checkpoints.load_policy(checkpoint, model, mesh)
    default = checkpoint.parent.parent / "infer" / f"{data.name}-{data.split}-{int(checkpoint.name):06}.jsonl"
    path = files.absolute(output_path) if output_path else default
    checkpoints.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    answers = generator(graph, params, mesh, data, temperature)
    if jax.process_index() != 0:
        for _ in answers:  # Its devices have their share of the work.
            pass
        return path
    began = time.monotonic()
    with files.writing(path) as file:
        for number, answer in zip(itertools.count(1), answers, strict=False):
            file.write(json.dumps(answer_row(answer), ensure_ascii=False) + "\n")
            if number % generator.batch_size == 0 or number == len(data):
                line = f"infer: {number} of {len(data)} prompts, {time.monotonic() - began:.1f} s"
                print(line, file=sys.stderr, flush=True)
    return path

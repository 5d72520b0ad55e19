"""`lmirl score`: what a checkpoint makes of answers, token by token, as JSONL or Parquet."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.cli.configure import add_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import from_first_process

RUN_FILE = "gin/runs/score.gin"


def main(flags: Flags) -> int:
    configure_without_run(flags, RUN_FILE, "CHECKPOINT_PATH")
    data = configuration.macro(
        "DATA", None
    )  # What to score; in the run's own configuration, what it was trained on.
    checkpoint = add_run(flags, configuration.macro("CHECKPOINT_PATH"), own=("DATA",))
    print(configuration.configured(score)(checkpoint, data))
    return 0


def score(
    checkpoint: epath.Path,
    data: str | None,
    *,
    model: Any,
    mesh: Any,
    task: Any,
    lengths: Mapping[str, int],
    discount: float,
    pairs: Callable[..., Any],
    scorer: Callable[..., Any],
    reference_path: str | None = None,
    output_path: str | None = None,
    metrics: bool = True,
) -> epath.Path:
    """Scores every pair, a line each; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the same command goes on with it after a kill.

    Args:
        checkpoint: the folder of one checkpoint.
        data: a file of pairs; None for a split of the task.
        model: the recipe of the network.
        mesh: the devices.
        task: for its vocabulary, and its metrics.
        lengths: tokens of a row, for `inputs` and `targets`.
        discount: gamma.
        pairs: makes what to score, of `path`: `data.pairs`.
        scorer: makes what scores it, of a model: `rewards.Scorer`.
        reference_path: of the reference policy; None for none.
        output_path: of the file, JSONL or, if it ends in .parquet, Parquet; None for the run's score/NAME-STEP.jsonl.
        metrics: whether to add the task's metrics of answers that have a reference.

    Returns:
        The path of the file.
    """
    import jax

    from lmirl_jax import runs
    from lmirl_jax.rewards import scored_file
    from lmirl_jax.training import checkpoints

    chosen = pairs(path=data)
    path = _output_path(output_path, checkpoint, chosen.name)
    graph, params = checkpoints.load_policy(checkpoint, model, mesh)
    run = runs.Run(checkpoint, graph, params, mesh, task, lengths, discount)
    reference = None if reference_path is None else runs.load(reference_path, mesh, task)
    scores = scorer(run, reference=reference)
    checkpoints.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")

    def answers(skip: int) -> Iterator[Any]:
        return scores(chosen, from_first_process(skip))

    if jax.process_index() != 0:
        for _ in answers(0):  # Its devices have their share of the work.
            pass
        return path
    settings = _settings(checkpoint, reference, chosen, metrics) | scores.settings()
    finish = scored_file.to_parquet if path.suffix == ".parquet" else None
    with files.growing(path, settings, finish) as (file, written):
        found = _measured(answers(written), task) if metrics else answers(written)
        _write(file, found, written, len(chosen))
    return path


def _output_path(output_path: str | None, checkpoint: epath.Path, name: str) -> epath.Path:
    from lmirl_jax.types import UserError

    default = checkpoint.parent.parent / "score" / f"{name}-{int(checkpoint.name):06}.jsonl"
    path = files.absolute(output_path) if output_path else default
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={str(path)!r} is a folder: name a file, such as {str(path / default.name)!r}"
        )
    return path


def _settings(checkpoint: epath.Path, reference: Any, pairs: Any, metrics: bool) -> dict[str, Any]:
    """What the lines depend on beside the scorer's own settings, by the names of the macros."""
    from lmirl_jax.evaluation.sweep_cells import identity

    return {
        "CHECKPOINT_PATH": f"{checkpoint} {identity(checkpoint)}",
        "REFERENCE_PATH": reference and f"{reference} {identity(reference.checkpoint)}",
        "DATA": pairs.fingerprint(),
        "METRICS": metrics,
    }


def _measured(answers: Iterator[Any], task: Any) -> Iterator[Any]:
    """With the task's metrics of those that have a reference; of a mixture no line says which task it is of."""
    import dataclasses

    from lmirl_jax.data import answer_metrics

    for answer in answers:
        if answer.reference is not None and len(task.tasks) == 1:
            metrics = answer_metrics(task.tasks[0], answer.inputs, answer.reference, answer.targets)
            yield dataclasses.replace(answer, metrics=metrics)
        else:
            yield answer


def _write(file: Any, answers: Iterator[Any], written: int, total: int) -> None:
    """Adds a line an answer, and says how far it is."""
    from lmirl_jax.training.progress import Progress

    progress = Progress("score", written, total, unit="answer")
    if written:
        progress.say(f"goes on after {written} of {total} answers")
    truncated = 0
    for number, answer in enumerate(answers, start=written + 1):
        file.write(json.dumps(answer.to_row(), ensure_ascii=False) + "\n")
        truncated += answer.truncated
        if number % 100 == 0 or number == total:
            file.flush()
            progress.update(number, {})
    progress.close()
    if truncated:
        progress.say(
            f"{truncated} answers are truncated: they lack their EOS, so their last token has no reward (null) and their "
            "return lacks it; a larger TASK_FEATURE_LENGTHS may hold all"
        )

"""`lmirl score`: what a checkpoint makes of answers, token by token, as JSONL or Parquet."""

import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import configuration
from lmirl_jax.argument_rules import GivenByCaller, Words
from lmirl_jax.arguments import Lengths, Path, Share, checked, has_parameter
from lmirl_jax.cli import line_file
from lmirl_jax.cli.configure import add_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.types import ModelConfig, Task

RUN_FILE = "gin/runs/score.gin"
MakesPairs = Annotated[Callable[..., Any], Words("@data.pairs, without brackets", has_parameter("path"))]
MakesScorer = Annotated[
    Callable[..., Any], Words("@rewards.Scorer, without brackets", has_parameter("reference"))
]


def main(flags: Flags) -> int:
    configure_without_run(flags, RUN_FILE, "CHECKPOINT_PATH")
    # What to score; in the run's own configuration, what it was trained on.
    data = configuration.macro("DATA", None, hint=Path | None)
    named = configuration.macro("MIXTURE_OR_TASK_NAME", None) is not None
    # Another task than the run's, which may have been a file.
    no_file = {"DATA": None, "VALIDATION_DATA": None} if named else {}
    checkpoint = add_run(
        flags, configuration.macro("CHECKPOINT_PATH", hint=Path), own=("DATA",), macros=no_file
    )
    line_file.check_inputs(checkpoint, DATA=data)
    print(configuration.configured(score)(checkpoint, data))
    return 0


@checked
def score(
    checkpoint: Annotated[epath.Path, GivenByCaller()],
    data: Annotated[Path | None, GivenByCaller()],
    *,
    model: ModelConfig,
    mesh: Mesh,
    task: Task,
    lengths: Lengths,
    discount: Share,
    pairs: MakesPairs,
    scorer: MakesScorer,
    reference_path: Path | None = None,
    output_path: Path | None = None,
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
    from lmirl_jax import runs
    from lmirl_jax.training import checkpoints

    chosen = pairs(path=data)
    default = checkpoint.parent.parent / "score" / f"{chosen.name}-{int(checkpoint.name):06}.jsonl"
    path = line_file.output_path(output_path, default, parquet=True)
    graph, params = checkpoints.load_policy(checkpoint, model, mesh)
    run = runs.Run(checkpoint, graph, params, mesh, task, lengths, discount)
    reference = None if reference_path is None else runs.load(reference_path, mesh, task)
    scores = scorer(run, reference=reference)
    checkpoints.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    write_scores(path, scores, chosen, task if metrics else None)
    return path


def write_scores(path: epath.Path, scorer: Any, pairs: Any, task: Any) -> None:
    """Writes the scores of pairs, with the metrics of a task unless it is None, and says how many answers are truncated."""
    from lmirl_jax.rewards import scored_file
    from lmirl_jax.training.progress import Progress

    truncated = 0

    def row(answer: Any) -> dict[str, Any]:
        nonlocal truncated
        truncated += answer.truncated
        return answer.to_row()

    line_file.write_lines(
        path,
        settings(scorer, pairs, task),
        lambda skip: _measured(scorer(pairs, skip), task),
        row,
        lambda written: Progress("score", written, len(pairs), unit="answer"),
        scored_file.to_parquet if path.suffix == ".parquet" else None,
    )
    if truncated:
        print(
            f"score: {truncated} answers are truncated: they lack their EOS, so their last token has no reward (null) and "
            "their return lacks it; a larger TASK_FEATURE_LENGTHS may hold all",
            file=sys.stderr,
        )


def settings(scorer: Any, pairs: Any, task: Any) -> dict[str, Any]:
    """What the lines depend on, by the names of the macros."""
    from lmirl_jax.evaluation.sweep_cells import identity

    def named(run: Any) -> str | None:
        return None if run is None else f"{run} {identity(run.checkpoint)}"

    return {
        "CHECKPOINT_PATH": named(scorer.model),
        "REFERENCE_PATH": named(scorer.reference),
        "DATA": pairs.fingerprint(),
        "METRICS": task is not None,
        **scorer.settings(),
    }


def _measured(answers: Iterator[Any], task: Any) -> Iterator[Any]:
    """With the task's metrics of those that have a reference; of a mixture no line says which task it is of."""
    import dataclasses

    from lmirl_jax.data import answer_metrics

    for answer in answers:
        if answer.reference is None or task is None or len(task.tasks) > 1:
            yield answer
        else:
            metrics = answer_metrics(task.tasks[0], answer.inputs, answer.reference, answer.targets)
            yield dataclasses.replace(answer, metrics=metrics)

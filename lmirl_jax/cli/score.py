"""`lmirl score`: the rewards of answers under a checkpoint, token by token, as JSONL or Parquet."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Annotated, Any, cast

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import checkpoints, configuration, files, runs
from lmirl_jax import data as data_room
from lmirl_jax.argument_rules import GivenByCaller, Words
from lmirl_jax.arguments import Lengths, Path, Share, check_arguments, has_parameter
from lmirl_jax.cli import line_file
from lmirl_jax.cli.configure import add_run, configure_without_run
from lmirl_jax.cli.data_sets import PairSet, TaskOrMixture
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import say, show
from lmirl_jax.rewards import RewardModel, ScoredAnswer, Scorer, scored_file
from lmirl_jax.training.progress import Progress
from lmirl_jax.types import ModelConfig

RUN_FILE = "gin/runs/score.gin"
MakesPairs = Annotated[Callable[..., Any], Words("@data.pairs, without brackets", has_parameter("path"))]
MakesScorer = Annotated[
    Callable[..., Any], Words("@rewards.Scorer, without brackets", has_parameter("reference"))
]


def main(flags: Flags) -> int:
    configure_without_run(flags, RUN_FILE, "CHECKPOINT_PATH")
    # Here DATA names the answers to score; in the configuration of the run it names the training data.
    data = configuration.macro("DATA", None, hint=Path | None)
    named = configuration.macro("MIXTURE_OR_TASK_NAME", None) is not None
    # The task may differ from that of the run, which may be a file.
    no_file = {"DATA": None, "VALIDATION_DATA": None, "VALIDATION_SHARE": 0.0} if named else {}
    path = configuration.macro("CHECKPOINT_PATH", hint=Path)
    checkpoint = add_run(flags, path, from_run=("DATA",), macros=no_file)
    line_file.check_inputs(checkpoint, DATA=data)
    show(configuration.with_configuration(score)(checkpoint, data))
    return 0


@check_arguments
def score(
    checkpoint: Annotated[epath.Path, GivenByCaller()],
    data: Annotated[Path | None, GivenByCaller()],
    *,
    model: ModelConfig,
    mesh: Mesh,
    task: TaskOrMixture,
    lengths: Lengths,
    discount: Share,
    pairs: MakesPairs,
    scorer: MakesScorer,
    reference_path: Path | None = None,
    output_path: Path | None = None,
    metrics: bool = True,
) -> epath.Path:
    """Writes the scores of each pair in one line; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the same command continues it after a kill.

    Args:
        checkpoint: the folder of one checkpoint.
        data: a file of pairs; None for a split of the task.
        model: the recipe of the network.
        mesh: the devices.
        task: the task, for its vocabulary and its metrics.
        lengths: the numbers of tokens in a row, for `inputs` and `targets`.
        discount: gamma.
        pairs: the function that makes the pairs to score from a path, `data.pairs`.
        scorer: the function that makes a scorer from a model, `rewards.Scorer`.
        reference_path: the path of the reference policy; None for no reference.
        output_path: the path of the file, Parquet if it ends in .parquet, else JSONL; None for the run's score/NAME-STEP.jsonl.
        metrics: whether to add the task's metrics of answers that have a reference.

    Returns:
        The path of the file.
    """
    pair_set = pairs(path=data)
    path = line_file.output_path(output_path, checkpoint, "score", pair_set.name, parquet=True)
    policy = runs.load_policy(checkpoint, model, mesh, task, lengths, discount)
    reference = runs.load_if_any(reference_path, mesh, task)
    scores = scorer(policy, reference=reference)
    files.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    write_scores(path, scores, pair_set, task if metrics else None)
    return path


def write_scores(path: epath.Path, scorer: Scorer, pairs: PairSet, task: TaskOrMixture | None) -> None:
    """Writes the scores of pairs, with the metrics of a task unless it is None, and says how many answers are truncated."""
    truncated = 0

    def row(answer: ScoredAnswer) -> dict[str, Any]:
        nonlocal truncated
        truncated += answer.truncated
        return answer.to_row()

    line_file.write_lines(
        path,
        settings(scorer, pairs, task),
        lambda skip: _with_metrics(scorer(pairs, skip), task),
        row,
        lambda count: Progress("score", count, len(pairs), unit="answer"),
        scored_file.to_parquet if path.suffix == ".parquet" else None,
    )
    if truncated:
        say(
            "score",
            f"{truncated} answers are truncated: they lack their EOS, so their last token has no reward (null) and "
            "their return lacks it; a larger TASK_FEATURE_LENGTHS may hold all",
        )


def settings(scorer: Scorer, pairs: PairSet, task: TaskOrMixture | None) -> dict[str, Any]:
    """The settings that determine the lines, by the names of the macros."""

    def named(model: RewardModel | None) -> str | None:
        # A command scores with policies that it has loaded.
        policy = cast(runs.Policy | None, model)
        return None if policy is None else f"{policy} {checkpoints.identity(policy.checkpoint)}"

    return {
        "CHECKPOINT_PATH": named(scorer.model),
        "REFERENCE_PATH": named(scorer.reference),
        "DATA": pairs.fingerprint(),
        "SCORE_METRICS": task is not None,
        **scorer.settings(),
    }


def _with_metrics(answers: Iterator[ScoredAnswer], task: TaskOrMixture | None) -> Iterator[ScoredAnswer]:
    """Adds the metrics of the task to answers with a reference; not for mixtures, because a line does not tell its task."""
    for answer in answers:
        if answer.reference is None or task is None or len(task.tasks) > 1:
            yield answer
        else:
            texts = (answer.inputs, answer.reference, answer.targets)
            metrics = data_room.answer_metrics(task.tasks[0], *texts, answer.references)
            yield dataclasses.replace(answer, metrics=metrics)

"""`lmirl infer`: a checkpoint's answers to prompts, as JSONL."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from etils import epath
from jax.sharding import Mesh

from lmirl_jax import checkpoints, configuration, files, runs
from lmirl_jax import data as data_room
from lmirl_jax.argument_rules import GivenByCaller, Is
from lmirl_jax.arguments import NonNegative, Path, check_arguments
from lmirl_jax.cli import line_file
from lmirl_jax.cli.configure import configure_from_run
from lmirl_jax.cli.data_sets import PromptSet
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import say, show
from lmirl_jax.cli.reranking import Reranking
from lmirl_jax.evaluation import Answers, majority
from lmirl_jax.evaluation.evaluator import answer_row
from lmirl_jax.evaluation.generation import Generator, Prompts
from lmirl_jax.training.progress import Progress
from lmirl_jax.types import ModelConfig, UserError


def main(flags: Flags) -> int:
    checkpoint = configure_from_run(flags, "gin/runs/infer.gin")
    line_file.check_inputs(checkpoint)
    show(configuration.with_configuration(infer)(checkpoint))
    return 0


@check_arguments
def infer(
    checkpoint: Annotated[epath.Path, GivenByCaller()],
    *,
    model: ModelConfig,
    mesh: Mesh,
    data: Annotated[PromptSet, Is(Prompts)],
    generator: Generator,
    temperature: NonNegative = 1.0,
    output_path: Path | None = None,
    reranking: Reranking = Reranking(),
    vote: Callable[[str], Any] | None = None,
) -> epath.Path:
    """Writes one line for each prompt; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the same command continues it after a kill.

    Args:
        checkpoint: the folder of one checkpoint.
        model: the recipe of the network.
        mesh: the devices.
        data: the prompts, an `EvalDataset` or a `PromptFile`.
        generator: the generator of answers.
        temperature: the sampling temperature; 0 always takes the likeliest token.
        output_path: the path of the JSONL file; None for the run's infer/NAME-SPLIT-STEP.jsonl.
        reranking: the settings for scoring the samples.
        vote: a function from a scored sample's text to its vote in a majority, or None; without it the text is the vote.

    Returns:
        The path of the file.
    """
    _check_vote(vote, reranking)
    generator.check_samples(temperature)
    generator.check(mesh)
    path = line_file.output_path(output_path, checkpoint, "infer", f"{data.name}-{data.split}")
    reward = reranking.settings(checkpoint)
    files.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    policy = runs.load_policy(checkpoint, model, mesh, data.task, data.lengths, reranking.discount)
    reranker = reranking.reranker(policy, generator.batch_size, generator.max_length)

    def answers(skip: int) -> Iterator[Answers]:
        samples = generator(policy.graph, policy.params, mesh, data, temperature, skip)
        return samples if reranker is None else reranker(data, samples, skip)

    if reranker is not None and vote is not None:
        reward |= {"VOTE": _name(vote)}
    all_settings = settings(checkpoint, data, generator, temperature) | reward
    write_answers(path, all_settings, answers, len(data), vote)
    return path


def _check_vote(vote: Callable[[str], Any] | None, reranking: Reranking) -> None:
    if vote is not None and not reranking.on:
        raise UserError(f"VOTE={_name(vote)} has no effect without RERANK: add --gin.RERANK=True")


def _vote_of(text: str, vote: Callable[[str], Any] | None) -> Any:
    """The vote of a sample; raises a UserError if the user's function fails."""
    if vote is None:
        return text
    try:
        choice = vote(text)
        hash(choice)
    except Exception as error:
        what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise UserError(
            f"VOTE={_name(vote)} raised {what} for the sample {text!r}: give a string or a number for every text, or None"
        ) from error
    return choice


def _name(vote: Callable[[str], Any]) -> str:
    return getattr(vote, "__qualname__", repr(vote))


def write_answers(
    path: epath.Path,
    settings: Mapping[str, Any],
    answers: Callable[[int], Iterator[Answers]],
    total: int,
    vote: Callable[[str], Any] | None = None,
) -> None:
    """Writes all answers; returns a line on the difference of their log-probabilities from those of teacher forcing.

    Args:
        path: the path of the file.
        settings: the settings that determine the lines.
        answers: `answers(count)` makes all answers after the first `count`.
        total: the number of prompts.
        vote: see `infer`.
    """
    gap = 0.0

    def line(answer: Answers) -> dict[str, Any]:
        nonlocal gap
        gap = max(gap, answer.log_prob_gap or 0.0)
        return row(answer, vote)

    def progress(count: int) -> Progress:
        return Progress("infer", count, total, unit="prompt")

    line_file.write_lines(path, settings, answers, line, progress)
    if gap:
        say("infer", f"log-probabilities are within {gap:.1e} nats of teacher forcing")


def settings(
    checkpoint: epath.Path, data: Prompts, generator: Generator, temperature: float
) -> dict[str, Any]:
    """The settings that determine the lines, by the names of the macros."""
    of_prompts = {
        "CHECKPOINT_PATH": f"{checkpoint} {checkpoints.identity(checkpoint)}",
        "prompts": data_room.content_hash(data),
        "TEMPERATURE": temperature,
    }
    return of_prompts | generator.settings()


def row(answer: Answers, vote: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The content of a line: texts, log pi of each sample, and log pi and entropy of each token, in nats at temperature 1.

    Where samples have scores, a line also holds their returns, which sample is the best by each score, and what most samples
    vote for.
    """

    def rounded(values: Sequence[Sequence[float]]) -> list[list[float]]:
        return [[round(value, 6) for value in of_sample] for of_sample in values]

    tokens = {"tokens": [list(of_sample) for of_sample in answer.tokens]}
    by_token = {
        "token_log_probs": rounded(answer.log_probs),
        "token_entropies": rounded(answer.entropies),
    }
    line = answer_row(answer) | tokens | by_token
    if answer.scores:
        votes = [_vote_of(text, vote) for text in answer.texts]
        weights = {"votes": None, **answer.scores}
        winners = {name: majority(votes, of_samples) for name, of_samples in weights.items()}
        line["majority"] = {name: None if won is None else str(won) for name, won in winners.items()}
    return line

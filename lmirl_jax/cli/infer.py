"""`lmirl infer`: a checkpoint's answers to prompts, as JSONL."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.cli.configure import configure_from_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import from_first_process
from lmirl_jax.cli.reranking import Reranking


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
    reranking: Reranking = Reranking(),
) -> epath.Path:
    """Answers every prompt, a line each; the file appears under its name when it is complete.

    Until then it grows as PATH.partial, and the same command goes on with it after a kill.

    Args:
        checkpoint: the folder of one checkpoint.
        model: the recipe of the network.
        mesh: the devices.
        data: the prompts, an `EvalDataset` or a `PromptFile`.
        generator: how to sample.
        temperature: of sampling; 0 takes the likeliest token each time.
        output_path: of the JSONL file; None for the run's infer/NAME-SPLIT-STEP.jsonl.
        reranking: whether to score the samples, and by which checkpoint.

    Returns:
        The path of the file.
    """
    import jax

    from lmirl_jax.data import content_hash
    from lmirl_jax.training import checkpoints
    from lmirl_jax.types import UserError

    generator.check_temperature(temperature)
    if temperature == 0 and generator.num_samples > 1:
        raise UserError(
            f"TEMPERATURE=0 has one answer to a prompt, not NUM_SAMPLES={generator.num_samples}: set NUM_SAMPLES=1, or a "
            "positive TEMPERATURE"
        )
    generator.check(mesh)
    default = checkpoint.parent.parent / "infer" / f"{data.name}-{data.split}-{int(checkpoint.name):06}.jsonl"
    path = files.absolute(output_path) if output_path else default
    if path.is_dir():
        raise UserError(
            f"OUTPUT_PATH={str(path)!r} is a folder: name a file, such as {str(path / default.name)!r}"
        )
    reward = reranking.settings(checkpoint)
    checkpoints.prepare_directory(str(path.parent), "the folder of OUTPUT_PATH")
    graph, params = checkpoints.load_policy(checkpoint, model, mesh)
    reranker = reranking.reranker(checkpoint, graph, params, mesh, data, generator)

    def answers(skip: int) -> Iterator[Any]:
        skip = from_first_process(skip)
        found = generator(graph, params, mesh, data, temperature, skip)
        return found if reranker is None else reranker(data, found, skip)

    if jax.process_index() != 0:
        for _ in answers(0):  # Its devices have their share of the work.
            pass
        return path
    chosen = {"CHECKPOINT_PATH": str(checkpoint), "prompts": content_hash(data), "TEMPERATURE": temperature}
    with files.growing(path, chosen | generator.settings() | reward) as (file, written):
        _write(file, answers(written), written, len(data), generator.batch_size)
    return path


def row(answer: Any) -> dict[str, Any]:
    """What a line holds: texts, log pi of each sample, and log pi and the entropy of each token; nats, temperature 1.

    Where samples were scored, also their returns and which is the best by each score.
    """
    from lmirl_jax.evaluation.evaluator import answer_row

    def rounded(values: Sequence[Sequence[float]]) -> list[list[float]]:
        return [[round(value, 6) for value in of_sample] for of_sample in values]

    tokens = {"tokens": [list(of_sample) for of_sample in answer.tokens]}
    by_token = {
        "token_log_probs": rounded(answer.log_probs),
        "token_entropies": rounded(answer.entropies),
    }
    return answer_row(answer) | tokens | by_token


def _write(file: Any, answers: Iterator[Any], written: int, total: int, batch_size: int) -> None:
    """Adds a line an answer, and says how far it is after each batch."""
    from lmirl_jax.training.progress import Progress

    progress = Progress("infer", written, total, unit="prompt")
    if written:
        progress.say(f"goes on after {written} of {total} prompts")
    gap = 0.0
    for number, answer in zip(itertools.count(written + 1), answers, strict=False):
        file.write(json.dumps(row(answer), ensure_ascii=False) + "\n")
        file.flush()
        gap = max(gap, answer.log_prob_gap or 0.0)
        if number % batch_size == 0 or number == total:
            progress.update(number, {})
    progress.close()
    if gap:
        progress.say(f"log-probabilities are within {gap:.1e} nats of teacher forcing")

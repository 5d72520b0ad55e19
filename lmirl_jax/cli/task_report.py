"""`lmirl tasks show`: the examples of a task or a file as a model reads them, their lengths, and what is lost of them."""

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from lmirl_jax import configuration
from lmirl_jax.arguments import Lengths
from lmirl_jax.cli.flags import Flags, UsageError
from lmirl_jax.cli.task_modules import RUN_FILE, load
from lmirl_jax.data.chat_vocabulary import USER, ChatVocabulary
from lmirl_jax.data.jsonl import MESSAGES, READ
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.records import Records, tokenized_records
from lmirl_jax.data.task_metrics import as_seqio
from lmirl_jax.data.task_parts import FEATURES, Example, TaskPart, last_turn
from lmirl_jax.data.unread_keys import describe_unread
from lmirl_jax.data.vocabulary_losses import describe_losses
from lmirl_jax.types import UserError

PERCENTILES = (50, 90, 95, 99, 100)
# Suggested lengths hold this share of the texts, in percent, and are multiples of MULTIPLE.
HELD, MULTIPLE = 99, 8
# How many examples of a split are printed, unless --num_examples says it.
NUM_EXAMPLES = 2
# The most characters of a text that are printed.
MOST = 1000


def report(flags: Flags) -> Iterator[str]:
    """The lines of the report on the task that the flags name.

    Raises:
        UserError: an unknown name, or, after all lines, a split that cannot be read.
        UsageError: the flags name no task and no file.
    """
    _log_to_stderr()
    load(flags, (RUN_FILE,), _bindings(flags))
    task, lengths = (
        configuration.macro("TASK", hint=Task),
        configuration.macro("TASK_FEATURE_LENGTHS", hint=Lengths),
    )
    all_turns = configuration.macro("CHAT_TURNS", "all") == "all"
    longest: list[Int64[np.ndarray, " 2"]] = []
    held: list[Int64[np.ndarray, " 2"]] = []
    errors = []
    for part, split in _splits(task, flags.split):
        try:
            records = tokenized_records(part, split)
        except UserError as error:
            errors.append((f"{part.name}, {split}", error))
            continue
        sizes = records.lengths if split == "train" and all_turns else records.last_lengths
        longest.append(sizes.max(axis=0))
        held.append(_percentiles(sizes, (HELD,))[0])
        yield from _split_lines(part, split, records, sizes, lengths)
        count = NUM_EXAMPLES if flags.num_examples is None else flags.num_examples
        for index in range(min(count, len(records))):
            yield from _example_lines(task, part, records.source[index], index)
    if not longest:
        raise errors[0][1]
    for where, error in errors:
        yield from (f"{where}: cannot be read: {error}", "")
    yield from _suggestion(np.max(held, axis=0), np.max(longest, axis=0))
    if errors:
        raise UserError(
            f"not all could be read: {', '.join(where for where, _ in errors)} (the reason is above)"
        )


def _bindings(flags: Flags) -> tuple[str, ...]:
    """The binding of the name that stands after `show`; a file of the user's replaces a task that a gin file names."""
    if len(flags.words) > 1:
        return (f"MIXTURE_OR_TASK_NAME = {flags.words[1]!r}",)
    if any(binding.partition("=")[0].strip() == "DATA" for binding in flags.gin_bindings):
        return ("MIXTURE_OR_TASK_NAME = None",)
    if not flags.gin_file and not flags.gin_bindings:
        raise UsageError(
            "no task to show: write lmirl tasks show NAME (lmirl tasks lists them), or --gin.DATA=\"'my.jsonl'\" for a file"
        )
    return ()


def _splits(task: Task, wanted: Sequence[str]) -> list[tuple[TaskPart, str]]:
    known = list(dict.fromkeys(split for part in task.tasks for split in part.splits))
    unknown = [split for split in wanted if split not in known]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.4)
        hint = f"did you mean --split={nearest[0]}?" if nearest else f"it has {', '.join(known) or 'none'}"
        raise UserError(f"{task.name} has no split {unknown[0]!r}; {hint}")
    return [(part, split) for part in task.tasks for split in part.splits if not wanted or split in wanted]


def _split_lines(
    part: TaskPart,
    split: str,
    records: Records,
    sizes: Int64[np.ndarray, "examples 2"],
    lengths: Mapping[str, int],
) -> Iterator[str]:
    """What is true of all examples of a split."""
    count = len(records)
    names = [_name(function) for function in (*part.predict_metric_fns, *part.predict_with_aux_metric_fns)]
    yield f"{part.name}, {split}: {count:,} examples; metrics: {', '.join(names) or 'none'}"
    yield f"  {'tokens':8}{''.join(f'{name:>8}' for name in ('50%', '90%', '95%', '99%', 'max'))}  truncated"
    rows = _percentiles(sizes, PERCENTILES)
    for column, feature in enumerate(FEATURES):
        cells = "".join(f"{value:>8,}" for value in rows[:, column])
        cut = int((sizes[:, column] > lengths[feature]).sum())
        share = "<0.1%" if 0 < cut / count < 0.001 else f"{cut / count:.1%}"
        yield f"  {feature:8}{cells}  {cut:,} ({share}) at TASK_FEATURE_LENGTHS of {lengths[feature]:,}"
    lost = describe_losses(f"{part.name}, {split}", count, records.losses)
    yield f"  vocabulary: {'it holds all texts' if lost is None else lost.partition(': ')[2]}"
    unread = describe_unread(f"{part.name}, {split}", count, records.unread, READ)
    if unread is not None:
        yield f"  {unread}"
    yield ""


def _example_lines(task: Task, part: TaskPart, example: Example, index: int) -> Iterator[str]:
    """An example, decoded from its tokens, with the further references that metrics compare with."""
    example = last_turn(example)
    yield f"  example {index}"
    yield from _text_lines(f"inputs ({len(example.inputs):,} tokens)", _prompt(task, example))
    yield from _text_lines(f"targets ({len(example.targets):,} tokens)", task.decode(example.targets))
    text = example.features.get("targets_pretokenized", task.decode(example.targets))
    target = part.postprocess_fn(text, example=as_seqio(example.features), is_target=True)
    if isinstance(target, (list, tuple)) and all(isinstance(reference, str) for reference in target):
        for number, reference in enumerate(target[1:], 2):
            yield from _text_lines(f"reference {number}", reference)
    yield ""


def _prompt(task: Task, example: Example) -> str:
    """The text of a prompt; of a chat, as its template writes it."""
    text = task.decode_inputs(example.inputs)
    vocabulary = task.input_vocabulary
    if not isinstance(vocabulary, ChatVocabulary):
        return text
    messages = example.features.get(MESSAGES) or [{"role": USER, "content": text}]
    return vocabulary.template.render(messages, add_generation_prompt=True)


def _text_lines(name: str, text: str) -> Iterator[str]:
    cut = f"… ({len(text):,} characters)" if len(text) > MOST else ""
    yield f"    {name}"
    # Only a newline ends a line: texts hold other separators of lines.
    yield from (f"      {line}" for line in (text[:MOST] + cut).split("\n"))


def _suggestion(held: Int64[np.ndarray, " 2"], longest: Int64[np.ndarray, " 2"]) -> Iterator[str]:
    lengths = {key: -(-int(size) // MULTIPLE) * MULTIPLE for key, size in zip(FEATURES, held, strict=True)}
    whole = {key: int(size) for key, size in zip(FEATURES, longest, strict=True)}
    yield f"{HELD}% of the inputs and of the targets of each split are whole with"
    yield f'  --gin.TASK_FEATURE_LENGTHS="{lengths}"'
    yield "and all of them with"
    yield f'  --gin.TASK_FEATURE_LENGTHS="{whole}"'


def _percentiles(
    sizes: Int64[np.ndarray, "examples 2"], percentiles: Sequence[int]
) -> Int64[np.ndarray, "percentiles 2"]:
    """The smallest lengths that hold at least these shares of the examples."""
    return np.percentile(sizes, percentiles, axis=0, method="inverted_cdf").astype(np.int64)


def _name(function: Any) -> str:
    return getattr(getattr(function, "func", function), "__name__", type(function).__name__)


def _log_to_stderr() -> None:
    """Says which split is being tokenised, which may take long; what training would warn of is in the report."""
    logger = logging.getLogger("lmirl_jax")
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)

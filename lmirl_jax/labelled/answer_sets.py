"""Reads prompts and several answers to each, as `lmirl infer` writes them, without a vocabulary."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lmirl_jax.data.chat_template import Message
from lmirl_jax.data.columns import KEYS, MESSAGES, Columns
from lmirl_jax.data.data_files import data_files
from lmirl_jax.data.json_rows import keys_of
from lmirl_jax.data.jsonl import check_targets, check_text, read_objects
from lmirl_jax.types import UserError

SEVERAL = ("samples", "candidates")
REMEDY = "write inputs or messages, and samples or candidates (lists of strings), or targets (a string)"


class AnswerSet(NamedTuple):
    """A prompt and answers to it.

    Args:
        where: the name of the row in errors.
        inputs: the text of the prompt.
        messages: the prompt as a conversation; None where it is a text.
        answers: the texts of the answers.
        references: the answers that the data set has; none where it has none.
        step_scores: a score for each step of each answer; None where the file has none.
        token_log_probs: what the file has under this name, which `lmirl infer` writes: log pi of each token of each answer.
    """

    where: str
    inputs: str
    messages: Sequence[Message] | None
    answers: Sequence[str]
    references: Sequence[str]
    step_scores: Sequence[Sequence[float]] | None = None
    token_log_probs: Any = None


def read_answer_sets(path: str) -> Iterator[AnswerSet]:
    """The prompts of files, as `data_files` takes them, in order, each with its answers.

    Beside `samples` or `candidates`, `targets` is the reference, or several; else it is the answer, and `reference` is what it
    is compared with.

    Raises:
        UserError: no such file, or a row that has no prompt or no answers.
    """
    columns = Columns()
    files = data_files(
        path, "ANSWERS must name a file with prompts and answers, such as one that lmirl infer wrote"
    )
    for where, given in read_objects(files, KEYS):
        yield _read(columns.read(given, where).values, where)


def _read(row: Mapping[str, Any], where: str) -> AnswerSet:
    several = [key for key in SEVERAL if key in row]
    messages = None
    if MESSAGES in row:
        messages = _conversation(row[MESSAGES], where)
    elif "inputs" not in row:
        raise UserError(f"{where}: no key 'inputs' (found: {keys_of(row)}); {REMEDY}")
    if len(several) > 1 or not (several or "targets" in row):
        both = " and ".join(several) or "neither samples, candidates nor targets"
        raise UserError(f"{where}: {both}; {REMEDY}")
    answers = row[several[0]] if several else [row["targets"]]
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{where}: {several[0]} is no list of one string or more; {REMEDY}")
    for answer in answers:
        check_text(answer, f"{where}: {several[0] if several else 'targets'}")
    references = row.get("targets" if several else "reference")
    if references is not None:
        check_targets(references, f"{where}: the reference")
    inputs = row.get("inputs", "" if messages is None else str(messages[-1]["content"]))
    check_text(inputs, f"{where}: inputs")
    texts = [] if references is None else [references] if isinstance(references, str) else references
    return AnswerSet(where, inputs, messages, answers, texts, token_log_probs=row.get("token_log_probs"))


def _conversation(messages: Any, where: str) -> list[Message]:
    """The messages that ask, without a last assistant turn."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise UserError(f"{where}: messages is no list of objects with role and content")
    prompt = list(messages)
    if prompt and prompt[-1].get("role") == "assistant":
        prompt.pop()
    if not prompt or not isinstance(prompt[-1].get("content"), str):
        raise UserError(f"{where}: messages asks nothing; write the message of a user")
    return prompt

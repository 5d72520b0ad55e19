"""Preferences: a rejected answer beside the one that is preferred to it, in a row of a file and in the rows of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lmirl_jax.data.columns import MESSAGES, REJECTED
from lmirl_jax.data.jsonl import check_text
from lmirl_jax.data.messages import ASSISTANT, FORM, encode_conversation
from lmirl_jax.data.task_parts import Example, last_turn
from lmirl_jax.data.vocabularies import encode_answer
from lmirl_jax.types import UserError


def rejected_features(
    row: Mapping[str, Any], preferred: Example, vocabulary: Any, where: str
) -> dict[str, Any]:
    """The tokens and the text of a row's rejected answer, as features of the example of its preferred answer.

    In a conversation the last assistant turn is the answer, and the rejected messages are a conversation with the same prompt, or
    an answer alone.

    Args:
        row: the row, with `rejected`.
        preferred: the example of the preferred answer.
        vocabulary: the vocabulary of prompts and answers.
        where: the name of the row in errors.

    Raises:
        UserError: the rejected answer is none, has another prompt, or equals the preferred one.
    """
    chosen = last_turn(preferred)
    if MESSAGES in row:
        prompt, tokens, text = _encode_messages(row, vocabulary, where)
        if not np.array_equal(prompt, chosen.inputs):
            raise UserError(
                f"{where}: the rejected conversation has another prompt than the chosen one; they may differ in the last "
                "assistant turn alone"
            )
    else:
        text = row[REJECTED]
        check_text(text, f"{where}: {REJECTED}")
        tokens = np.array(encode_answer(vocabulary, text), np.int32)
    if np.array_equal(tokens, chosen.targets):
        raise UserError(
            f"{where}: the rejected answer equals the chosen one, so that nothing is preferred; leave the line out"
        )
    return {REJECTED: tokens.tolist(), f"{REJECTED}_pretokenized": text}


def has_rejected(features: Mapping[str, Any]) -> bool:
    """Whether an example has the tokens of a rejected answer; a SeqIO task may pass on a text of this name."""
    tokens = features.get(REJECTED)
    return isinstance(tokens, list) and all(isinstance(token, int) for token in tokens)


def rejected_example(example: Example) -> Example | None:
    """The rejected answer to the prompt of an example, as an example; None if it has none."""
    if not has_rejected(example.features):
        return None
    return Example(example.inputs, np.array(example.features[REJECTED], np.int32), {})


def without_end(tokens: Int32[np.ndarray, " m"], eos_ids: Sequence[int]) -> Int32[np.ndarray, " n"]:
    """The tokens of an answer as those of a prefix, which does not end in EOS."""
    return tokens[:-1] if len(tokens) and int(tokens[-1]) in eos_ids else tokens


def _encode_messages(
    row: Mapping[str, Any], vocabulary: Any, where: str
) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " m"], str]:
    """The tokens of the rejected conversation's prompt and of its answer, and the answer's text."""
    messages = row[REJECTED]
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise UserError(
            f"{where}: {REJECTED} is {type(messages).__name__}, and the chosen answer is a conversation; write a list of {FORM}"
        )
    if messages and messages[0].get("role") == ASSISTANT:
        last = max(i for i, message in enumerate(row[MESSAGES]) if message["role"] == ASSISTANT)
        messages = [*row[MESSAGES][:last], *messages]
    chat, features = encode_conversation({MESSAGES: messages}, vocabulary, f"{where}: {REJECTED}")
    both = Example(np.array(chat.inputs, np.int32), np.array(chat.targets, np.int32), features)
    last_one = last_turn(both)
    return last_one.inputs, last_one.targets, features["targets_pretokenized"]

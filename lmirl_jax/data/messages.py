"""Conversations in the rows of files: `messages`, a list of objects with `role` and `content`, in place of inputs and targets."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmirl_jax.data.chat_template import Message
from lmirl_jax.data.chat_vocabulary import ASSISTANT, USER, Chat, ChatVocabulary, as_chat
from lmirl_jax.data.json_rows import keys_of
from lmirl_jax.data.jsonl import MESSAGES, check_text
from lmirl_jax.data.task_parts import TURNS, TURNS_LEFT_OUT
from lmirl_jax.types import UserError

SYSTEM = "system"
ROLES = (SYSTEM, USER, ASSISTANT)
FORM = '{"role": "user", "content": ".."}'


class Conversation(NamedTuple):
    """A conversation up to an assistant turn, and this turn's text.

    Args:
        prompt: the messages before the turn.
        answer: the content of the turn; None if there is none.
    """

    prompt: list[Message]
    answer: str | None

    @property
    def is_plain(self) -> bool:
        """Whether the prompt is a single text of a user, as `inputs` has it."""
        return (
            len(self.prompt) == 1
            and self.prompt[0].keys() == {"role", "content"}
            and (self.prompt[0]["role"] == USER)
        )


def read_messages(
    row: Mapping[str, Any], vocabulary: Any, where: str
) -> tuple[list[Message], ChatVocabulary]:
    """The messages of a row, checked, and the vocabulary, which has a chat template.

    Raises:
        UserError: the messages are no list of objects with strings as `role` and `content`, a role that the template does not
            name, or a vocabulary without a chat template; names `where`.
    """
    messages = row[MESSAGES]
    if not isinstance(messages, list):
        raise UserError(f"{where}: messages is {type(messages).__name__}, not a list; write a list of {FORM}")
    if not messages:
        raise UserError(f"{where}: messages is empty; write one {FORM} or more")
    chat = as_chat(vocabulary, where)
    return [_read(message, chat, f"{where}: message {n}") for n, message in enumerate(messages, 1)], chat


def encode_conversation(row: Mapping[str, Any], vocabulary: Any, where: str) -> tuple[Chat, dict[str, Any]]:
    """The tokens of a row's conversation up to the end of its last assistant turn, and its features.

    The features are the texts of the last turn and what comes before it, and `turns` where there are several.

    Raises:
        UserError: what `read_messages` raises, a conversation without an assistant turn, or one that the template refuses.
    """
    messages, chat = read_messages(row, vocabulary, where)
    last = max((i for i, message in enumerate(messages) if message["role"] == ASSISTANT), default=None)
    if last is None:
        raise UserError(
            f"{where}: no message has the role 'assistant', so there is nothing to learn; write its answer, or leave the line out"
        )
    encoded = _named(where, lambda: chat.encode_chat(messages[: last + 1]))
    conversation = Conversation(messages[:last], messages[last]["content"])
    begin = encoded.turns[-1][0]
    features = prompt_features(chat, conversation, [*encoded.inputs, *encoded.targets[:begin]])
    if len(encoded.turns) > 1:
        features[TURNS] = [list(turn) for turn in encoded.turns]
    if encoded.left_out:
        features[TURNS_LEFT_OUT] = encoded.left_out
    return encoded, features


def prompt_features(
    chat: ChatVocabulary, conversation: Conversation, tokens: Sequence[int]
) -> dict[str, Any]:
    """The texts of a conversation as features of an example; the messages too where its text alone would not give them back."""
    if conversation.is_plain:
        features: dict[str, Any] = {"inputs_pretokenized": conversation.prompt[0]["content"]}
    else:
        text = chat.decode_prompt(list(tokens))
        features = {"inputs_pretokenized": text, MESSAGES: [dict(message) for message in conversation.prompt]}
    if conversation.answer is not None:
        features["targets_pretokenized"] = conversation.answer
    return features


def encode_prompt(
    row: Mapping[str, Any], vocabulary: Any, where: str
) -> tuple[Conversation, np.ndarray, dict[str, Any]]:
    """What a row's conversation asks: its messages, their tokens up to where the answer begins, and its features.

    If the last message is an assistant turn, it is the reference answer.

    Raises:
        UserError: what `read_messages` raises, a conversation of an answer alone, or one that the template refuses.
    """
    messages, chat = read_messages(row, vocabulary, where)
    answer = messages[-1]["content"] if messages[-1]["role"] == ASSISTANT else None
    prompt = messages if answer is None else messages[:-1]
    if not prompt:
        raise UserError(f"{where}: the only message is an answer; write the message of a user before it")
    conversation = Conversation(prompt, answer)
    tokens = _named(where, lambda: chat.encode_messages(prompt))
    return conversation, np.array(tokens, np.int32), prompt_features(chat, conversation, tokens)


def is_conversation(prompt: Any) -> bool:
    """Whether a prompt is a list of messages, not a text or tokens."""
    return isinstance(prompt, (list, tuple)) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def encode_given(
    prompt: str | Sequence[Mapping[str, Any]], vocabulary: Any, where: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """The tokens of a prompt up to where the answer begins, and its features; it is a text, or a conversation to answer.

    Raises:
        UserError: what `encode_prompt` raises, or a conversation that ends with an answer; names `where`.
    """
    if isinstance(prompt, str):
        return np.asarray(vocabulary.encode_prompt(prompt), np.int32), {"inputs_pretokenized": prompt}
    row = {MESSAGES: [dict(message) if isinstance(message, Mapping) else message for message in prompt]}
    conversation, tokens, features = encode_prompt(row, vocabulary, where)
    if conversation.answer is not None:
        raise UserError(f"{where}: the last message is the assistant's; end with the message to answer")
    return tokens, features


def _read(message: Any, chat: ChatVocabulary, what: str) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{what} is {type(message).__name__}, not an object; write {FORM}")
    # The columns of Parquet are there in every message.
    message = {key: value for key, value in message.items() if value is not None}
    for key in ("role", "content"):
        if key not in message:
            there = keys_of(message)
            raise UserError(f"{what} has no {key!r} (found: {there}); write {FORM}")
        if isinstance(message[key], list):
            raise UserError(f"{what}: {key} is a list, not a string; only text is read: write one string")
        check_text(message[key], f"{what}: {key}")
    role = message["role"]
    if role not in ROLES and not chat.template.names_role(role):
        raise UserError(
            f"{what} has the role {role!r}, which the chat template does not name; write {', '.join(ROLES[:-1])} or {ASSISTANT}"
        )
    return message


def _named(where: str, encode: Any) -> Any:
    """What a function returns; its errors begin with the name of the row."""
    try:
        return encode()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None

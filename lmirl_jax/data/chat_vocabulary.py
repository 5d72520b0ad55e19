"""The vocabulary of a chat model: prompts are written with its chat template, and answers end as its assistant turns do."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lmirl_jax.data.chat_template import ChatTemplate, Message
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.types import UserError

USER, ASSISTANT = "user", "assistant"
# Texts that no template writes.
QUESTION, ANSWER = "Qzxjk vwqy", "Jkwqv xzky"


@dataclasses.dataclass(frozen=True)
class Chat:
    """A conversation as tokens, from its beginning to the end of its last assistant turn.

    Args:
        inputs: what comes before the first turn that is learnt, with the generation prompt at its end.
        targets: that turn, then the text up to the next one with its generation prompt, that turn, and so on.
        turns: the positions in `targets` at which each assistant turn begins, and before which it ends.
        left_out: the number of earlier assistant turns that are part of `inputs`, because the template writes them in another
            way once another turn follows.
    """

    inputs: list[int]
    targets: list[int]
    turns: tuple[tuple[int, int], ...]
    left_out: int = 0


@runtime_checkable
class SpecialVocabulary(Vocabulary, Protocol):
    """A vocabulary that says which of its tokens are special: that of a Hugging Face tokenizer."""

    @property
    def special_ids(self) -> Mapping[int, str]:
        """The texts of the special tokens by their ids."""
        ...

    def token_text(self, token: int) -> str:
        """The text that spells out a token."""
        ...


class ChatVocabulary:
    """A Hugging Face vocabulary with a chat template; a text alone is the one message of a user.

    `eos_ids` begin with the token that ends an assistant turn: the first of the tokenizer's own that the template writes
    after an answer, else the first special token there.

    Args:
        wrapped: the tokenizer.
        template: its chat template.

    Raises:
        UserError: the template refuses a user's message with an answer.
    """

    def __init__(self, wrapped: SpecialVocabulary, template: ChatTemplate):
        self.wrapped, self.template = wrapped, template
        asked = [{"role": USER, "content": QUESTION}]
        try:
            text = template.render([*asked, {"role": ASSISTANT, "content": ANSWER}])
        except UserError as error:
            raise UserError(
                f"{error}; it must take one message of a user and an answer, or set CHAT = False to read texts without it"
            ) from None
        # What the template writes after an answer.
        self._after = text.rpartition(ANSWER)[2] if ANSWER in text else ""
        ids = wrapped.encode(self._after)
        ends = [i for i in ids if i in wrapped.eos_ids] or [i for i in ids if i in wrapped.special_ids]
        self.eos_ids = tuple(dict.fromkeys((*ends[:1], *wrapped.eos_ids)))
        self._end = wrapped.token_text(ends[0]) if ends else ""
        ids = self.encode_messages(asked)
        # The text of a prompt before and behind a user's own, and its special tokens.
        before, _, behind = self._read(ids).partition(QUESTION)
        self._around = before, behind, self._specials(ids)
        self.start_id, self.unk_id = wrapped.start_id, wrapped.unk_id
        self.vocab_size, self.holds_every_text = wrapped.vocab_size, wrapped.holds_every_text

    def encode(self, text: str) -> list[int]:
        return self.wrapped.encode(text)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of the conversation of one message, up to where the answer begins."""
        return self.encode_messages([{"role": USER, "content": text}])

    def encode_messages(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation, up to where the next assistant turn begins.

        Raises:
            UserError: the template refuses the conversation.
        """
        # The template writes the special tokens itself.
        return self.wrapped.encode(self.template.render(messages, add_generation_prompt=True))

    def decode(self, ids: Sequence[int]) -> str:
        return self.wrapped.decode(self._until_end(ids))

    def decode_prompt(self, ids: Sequence[int]) -> str:
        """The user's text, if a prompt is one message; else the text of the conversation without special tokens."""
        before, behind, specials = self._around
        ids = list(ids)
        text = self._read(ids)
        is_one = self._specials(ids) == specials and text.startswith(before) and text.endswith(behind)
        return text[len(before) : len(text) - len(behind)] if is_one else text

    def _read(self, ids: Sequence[int]) -> str:
        """The text of tokens, also behind one that ends an answer."""
        return self.wrapped.decode([i for i in ids if i not in self.eos_ids])

    def _specials(self, ids: Sequence[int]) -> list[int]:
        return [i for i in ids if i in self.eos_ids or i in self.wrapped.special_ids]

    def fingerprint(self) -> str:
        described = [
            self.wrapped.fingerprint(),
            self.template.source,
            self.template.special_tokens,
            self.eos_ids,
        ]
        return hashlib.sha256(f"ChatVocabulary {described}".encode()).hexdigest()

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        return self.wrapped.text_offsets(text, ids)

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        kept = self._until_end(ids)
        offsets = self.wrapped.token_offsets(kept, text)
        return None if offsets is None else offsets + ((len(text), len(text)),) * (len(ids) - len(kept))

    def encode_chat(self, messages: Sequence[Message]) -> Chat:
        """The tokens of a conversation that ends with an assistant turn, in pieces as generation sees them.

        The text up to an answer is encoded, then the answer with the token that ends it, then the text up to the next answer.
        If the template does not write what it wrote before plus more as the conversation goes on, there is one turn, the last.

        Raises:
            UserError: the template refuses the conversation.
        """
        places = [i for i, message in enumerate(messages) if message["role"] == ASSISTANT]
        pieces = self._pieces(messages, places)
        left_out = 0
        if pieces is None:
            left_out = len(places) - 1
            pieces = self._pieces(messages, places[-1:])
        if pieces is None:
            # The generation prompt is not what stands before an answer: the answer comes after it as it is.
            prompt = self.template.render(messages[: places[-1]], add_generation_prompt=True)
            pieces = [(prompt, messages[places[-1]]["content"])]
        targets: list[int] = []
        turns = []
        for number, (before, answer) in enumerate(pieces):
            targets += self.encode(before) if number else []
            begin = len(targets)
            ids = self.encode(answer)
            targets += ids if ids and ids[-1] in self.eos_ids else [*ids, self.eos_ids[0]]
            turns.append((begin, len(targets)))
        return Chat(self.encode(pieces[0][0]), targets, tuple(turns), left_out)

    def _pieces(self, messages: Sequence[Message], places: Sequence[int]) -> list[tuple[str, str]] | None:
        """The text before each answer, from the end of the one before, and the answer; None if they do not follow each other."""
        pieces, so_far = [], ""
        for place in places:
            prompt = self.template.render(messages[:place], add_generation_prompt=True)
            whole = self.template.render(messages[: place + 1])
            if not (prompt.startswith(so_far) and whole.startswith(prompt)):
                return None
            answer = self._answer(whole[len(prompt) :])
            pieces.append((prompt[len(so_far) :], answer))
            so_far = prompt + answer
        return pieces

    def _answer(self, text: str) -> str:
        """The part of a text behind a generation prompt up to the token that ends the answer."""
        if self._after and text.endswith(self._after):
            rest = self._after.find(self._end) + len(self._end) if self._end else 0
            return text[: len(text) - len(self._after) + rest]
        end = text.rfind(self._end) if self._end else -1
        return text if end < 0 else text[: end + len(self._end)]

    def _until_end(self, ids: Sequence[int]) -> list[int]:
        """The tokens before the first that ends an answer."""
        ids = list(ids)
        return ids[: min((ids.index(end) for end in self.eos_ids if end in ids), default=len(ids))]


def as_chat(vocabulary: Any, where: str) -> ChatVocabulary:
    """The vocabulary itself, which must have a chat template.

    Raises:
        UserError: it has none; names `where`.
    """
    if isinstance(vocabulary, ChatVocabulary):
        return vocabulary
    raise UserError(
        f"{where}: messages need a chat template, and the vocabulary is used without one: set VOCABULARY_PATH to the folder of "
        "a chat model and CHAT to None, or write inputs and targets"
    )

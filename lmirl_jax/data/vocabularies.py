"""Vocabularies: how texts become tokens and back. Bytes by default, a Hugging Face tokenizer or a SentencePiece model by path."""

import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.types import UserError


@runtime_checkable
class Vocabulary(Protocol):
    """Converts texts to tokens and back. Every id may be a word: no id means padding.

    `as_vocabulary` makes one of a `seqio.Vocabulary`.
    """

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end a text. The first one is appended to demonstrations; empty where there is none."""
        ...

    @property
    def start_id(self) -> int:
        """The token that a decoder is fed first: padding, or where there is none the token that ends a text.

        It is no word, because a model without absolute positions could not tell it from an answer that begins with it.
        """
        ...

    @property
    def unk_id(self) -> int | None:
        """The token for unknown text; None where there is none."""
        ...

    @property
    def vocab_size(self) -> int:
        """The number of ids; every id is smaller."""
        ...

    @property
    def holds_every_text(self) -> bool:
        """Whether decoding the tokens of a text always gives the same text."""
        ...

    def encode(self, text: str) -> list[int]:
        """Converts a text to tokens, without EOS."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Converts a prompt to tokens, with the special tokens around it that the model expects: for T5, EOS after it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Converts tokens to a text, up to the first EOS."""
        ...

    def fingerprint(self) -> str:
        """A hash of what the vocabulary does; it does not depend on the path of its file."""
        ...

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        """The begin and the end in the text of each of the tokens `encode(text)`; None where the vocabulary cannot tell."""
        ...

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        """The begin and the end of each token in `decode(ids)`; None where the vocabulary cannot tell."""
        ...


def vocabulary(path: str | None = None, chat: bool | None = None) -> Vocabulary:
    """Loads the vocabulary of a Hugging Face tokenizer or a SentencePiece model; without a path, makes ByT5's of bytes.

    Args:
        path: a folder with a Hugging Face tokenizer (tokenizer.json, spiece.model, or the tokenizer_config.json of a
            ByT5Tokenizer), or a tokenizer.json; a `.model` file as SentencePiece writes it, to which T5's 100 extra ids are
            added; or None.
        chat: whether prompts are written with the tokenizer's own chat template, and answers end as its assistant turns do;
            None where it has one, True where it must have one.

    Returns:
        The vocabulary; `seqio_vocabulary` makes SeqIO's type of it. With a chat template it is a `ChatVocabulary`.

    Raises:
        UserError: nothing is there, it cannot be read, no token ends a text, or there is no chat template where `chat` is
            True.
    """
    if path is None and chat:
        raise UserError(
            "CHAT=True: bytes have no chat template: set VOCABULARY_PATH to the folder of a chat model"
        )
    if path is None:
        return ByteVocabulary()
    if "://" in str(path):
        raise UserError(
            f"VOCABULARY_PATH={path!r} is not on this machine: copy it to a disk here and name the copy"
        )
    place = pathlib.Path(path).expanduser()
    if not place.exists():
        raise UserError(
            f"no vocabulary at {path}: VOCABULARY_PATH must be a folder with a Hugging Face tokenizer, a SentencePiece "
            ".model file, or None for bytes"
        )
    # This import loads the library of Hugging Face's tokenizers, which runs on bytes do without.
    from lmirl_jax.data import tokenizer_folder

    if place.is_dir() or place.suffix == ".json":
        return tokenizer_folder.read_tokenizer(place, chat)
    if chat:
        raise UserError(
            f"CHAT=True: the SentencePiece model {path} has no chat template: set VOCABULARY_PATH to the folder of a chat model"
        )
    return tokenizer_folder.read_pieces(place)


def as_vocabulary(vocabulary: Any) -> Vocabulary:
    """Returns a `Vocabulary` unchanged, and wraps a `seqio.Vocabulary` in one."""
    if isinstance(vocabulary, Vocabulary):
        return vocabulary
    # A SeqIO vocabulary can only exist if SeqIO is imported already.
    from lmirl_jax.data.seqio_vocabularies import from_seqio

    return from_seqio(vocabulary)


def encode_answer(vocabulary: Vocabulary, text: str) -> list[int]:
    """Converts an answer to tokens, with exactly one EOS at its end: a text may spell out the special token itself."""
    ids = vocabulary.encode(text)
    return ids if ends_itself(vocabulary, ids) else [*ids, *vocabulary.eos_ids[:1]]


def ends_itself(vocabulary: Vocabulary, ids: Sequence[int] | np.ndarray) -> bool:
    """Whether the last token ends a text already."""
    return len(ids) > 0 and int(ids[-1]) in vocabulary.eos_ids


def padded_vocab_size(*vocabularies: Any, multiple: int = 128) -> int:
    """The size of an embedding table for the vocabularies: the largest, rounded up to a multiple.

    Bytes take 384 rows and T5's vocabulary 32,128, as in ByT5 and T5.
    """
    largest = max(vocabulary.vocab_size for vocabulary in vocabularies)
    return -(-largest // multiple) * multiple


def vocabulary_fingerprint(vocabulary: Any) -> str:
    """A hash of what a vocabulary, also one of SeqIO, does; it does not depend on the path of its file."""
    return as_vocabulary(vocabulary).fingerprint()

"""Vocabularies: how texts become tokens and back. Bytes by default, a SentencePiece model by path."""

import pathlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.sentence_pieces import SentencePieceVocabulary
from lmirl_jax.types import UserError


@runtime_checkable
class Vocabulary(Protocol):
    """Texts as tokens. Every id may be a word: nothing is padding by its id.

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
        """The token that stands for what the vocabulary lacks; None where there is none."""
        ...

    @property
    def vocab_size(self) -> int:
        """All ids are below it."""
        ...

    @property
    def holds_every_text(self) -> bool:
        """Whether every text comes back from its tokens unchanged."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without one that ends it."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, up to the first one that ends it."""
        ...

    def fingerprint(self) -> str:
        """A hash of what the vocabulary does, wherever its file lies."""
        ...

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        """Where each of the tokens `encode(text)` begins and ends in the text; None where the vocabulary cannot say."""
        ...

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        """Where each of the tokens begins and ends in `decode(ids)`; None where the vocabulary cannot say."""
        ...


def vocabulary(path: str | None = None) -> ByteVocabulary | SentencePieceVocabulary:
    """The vocabulary of a SentencePiece model with T5's 100 extra ids, or bytes (ByT5's ids) without a path.

    Args:
        path: a `.model` file as SentencePiece writes it, or None.

    Returns:
        The vocabulary; `seqio_vocabulary` makes SeqIO's type of it.

    Raises:
        UserError: the file is missing, is no SentencePiece model, or has no end-of-sequence piece.
    """
    if path is None:
        return ByteVocabulary()
    if "://" in str(path):
        raise UserError(
            f"VOCABULARY_PATH={path!r} is not on this machine: copy it to a disk here and name the copy"
        )
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no vocabulary"
        raise UserError(
            f"{what} at {path}: VOCABULARY_PATH must be a SentencePiece .model file, or None for bytes"
        )
    try:
        loaded = SentencePieceVocabulary.load(file)
    except Exception as error:  # Protobuf and SentencePiece each raise their own.
        raise UserError(
            f"{path} is no SentencePiece model: VOCABULARY_PATH must name a .model file, or be None for bytes"
        ) from error
    if not loaded.eos_ids:
        raise UserError(
            f"the vocabulary at {path} has no end-of-sequence piece: train it with --pad_id=0 --eos_id=1 --unk_id=2"
        )
    return loaded


def as_vocabulary(vocabulary: Any) -> Vocabulary:
    """A vocabulary as it is, or the `Vocabulary` that does what a `seqio.Vocabulary` does."""
    if isinstance(vocabulary, Vocabulary):
        return vocabulary
    # Whoever has a SeqIO vocabulary has imported SeqIO already.
    from lmirl_jax.data.seqio_vocabularies import from_seqio

    return from_seqio(vocabulary)


def padded_vocab_size(*vocabularies: Any, multiple: int = 128) -> int:
    """The size of an embedding table for the vocabularies: the largest, rounded up to a multiple.

    Bytes take 384 rows and T5's vocabulary 32,128, as in ByT5 and T5.
    """
    largest = max(vocabulary.vocab_size for vocabulary in vocabularies)
    return -(-largest // multiple) * multiple


def vocabulary_fingerprint(vocabulary: Any) -> str:
    """A hash of what the vocabulary does, wherever its file lies; SeqIO's vocabularies have one too."""
    return as_vocabulary(vocabulary).fingerprint()

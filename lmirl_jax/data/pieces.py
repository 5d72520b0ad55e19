"""Which characters of a text each of its tokens stands for."""

import codecs
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from lmirl_jax.data.seqio_library import seqio

Offsets = tuple[tuple[int, int], ...]

SPECIAL = 3  # Ids of a byte vocabulary below its bytes: padding, EOS and unknown.


def encode_with_offsets(vocabulary: seqio.Vocabulary, text: str) -> tuple[Int32[np.ndarray, " n"], Offsets]:
    """The tokens of a text, without EOS, and where each begins and ends in it, in characters.

    Of the bytes of one character the last has it, and those before stand for nothing.
    """
    tokens = np.array(vocabulary.encode(text), np.int32)
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        pieces = vocabulary.tokenizer.encode(text, return_type="proto").pieces
        if [piece.id for piece in pieces] == tokens.tolist():
            return tokens, _in_characters(text, [(piece.begin, piece.end) for piece in pieces])
    return tokens, _clipped(decode_with_offsets(vocabulary, tokens)[1], len(text))


def decode_with_offsets(
    vocabulary: seqio.Vocabulary, tokens: Sequence[int] | np.ndarray
) -> tuple[str, Offsets]:
    """The text of tokens, as the vocabulary decodes it, and where each token begins and ends in it, in characters."""
    ids = [int(token) for token in tokens]
    text = vocabulary.decode(ids)
    if isinstance(vocabulary, seqio.ByteVocabulary):
        offsets = _of_bytes(ids)
    elif isinstance(vocabulary, seqio.SentencePieceVocabulary):
        offsets = _of_pieces(vocabulary, ids, text)
    else:
        offsets = _of_prefixes(vocabulary, ids, text)
    return text, offsets


def _of_bytes(ids: list[int]) -> Offsets:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    offsets, end = [], 0
    for token in ids:
        begin, byte = end, token - SPECIAL
        end += len(decoder.decode(bytes([byte]))) if 0 <= byte < 256 else 0
        offsets.append((begin, end))
    return tuple(offsets)


def _of_pieces(vocabulary: seqio.SentencePieceVocabulary, ids: list[int], text: str) -> Offsets:
    ends = ids.index(vocabulary.eos_id) + 1 if vocabulary.eos_id in ids else len(ids)
    decoded = vocabulary.tokenizer.decode(ids[:ends], return_type="proto")
    if decoded.text != text or len(decoded.pieces) != ends:
        return _of_prefixes(vocabulary, ids, text)
    found = _in_characters(text, [(piece.begin, piece.end) for piece in decoded.pieces])
    return found + ((len(text), len(text)),) * (len(ids) - ends)


def _of_prefixes(vocabulary: seqio.Vocabulary, ids: list[int], text: str) -> Offsets:
    """By decoding one token more each time: as far as the text so far agrees with the whole, its tokens stand for it."""
    offsets, end = [], 0
    for count in range(1, len(ids) + 1):
        so_far = vocabulary.decode(ids[:count])
        begin, end = end, max(end, _shared(so_far, text))
        offsets.append((begin, end))
    return tuple(offsets)


def _shared(one: str, other: str) -> int:
    """With how many characters both begin."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _in_characters(text: str, offsets: Sequence[tuple[int, int]]) -> Offsets:
    """From offsets in UTF-8 bytes."""
    starts = np.cumsum([0, *(len(character.encode("utf-8", "surrogatepass")) for character in text)])
    return tuple(
        (int(np.searchsorted(starts, begin)), int(np.searchsorted(starts, end))) for begin, end in offsets
    )


def _clipped(offsets: Offsets, length: int) -> Offsets:
    return tuple((min(begin, length), min(end, length)) for begin, end in offsets)

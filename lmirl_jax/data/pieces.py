"""Which characters of a text each of its tokens stands for."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary


def encode_with_offsets(vocabulary: Any, text: str) -> tuple[Int32[np.ndarray, " n"], Offsets]:
    """The tokens of a text, without EOS, and where each begins and ends in it, in characters.

    Of the bytes of one character the last has it, and those before stand for nothing.

    Args:
        vocabulary: a `Vocabulary`, or SeqIO's.
        text: any text.
    """
    vocabulary = as_vocabulary(vocabulary)
    ids = vocabulary.encode(text)
    offsets = vocabulary.text_offsets(text, ids)
    if offsets is None:
        _, decoded = decode_with_offsets(vocabulary, ids)
        offsets = tuple((min(begin, len(text)), min(end, len(text))) for begin, end in decoded)
    return np.array(ids, np.int32), offsets


def decode_with_offsets(vocabulary: Any, tokens: Sequence[int] | np.ndarray) -> tuple[str, Offsets]:
    """The text of tokens, as the vocabulary decodes it, and where each token begins and ends in it, in characters."""
    vocabulary = as_vocabulary(vocabulary)
    ids = [int(token) for token in tokens]
    text = vocabulary.decode(ids)
    offsets = vocabulary.token_offsets(ids, text)
    return text, _prefix_offsets(vocabulary, ids, text) if offsets is None else offsets


def _prefix_offsets(vocabulary: Vocabulary, ids: list[int], text: str) -> Offsets:
    """Decodes one token more each time: as far as the text so far agrees with the whole, its tokens stand for it."""
    offsets, end = [], 0
    for count in range(1, len(ids) + 1):
        so_far = vocabulary.decode(ids[:count])
        begin, end = end, max(end, _shared_length(so_far, text))
        offsets.append((begin, end))
    return tuple(offsets)


def _shared_length(one: str, other: str) -> int:
    """The number of characters with which both begin."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))

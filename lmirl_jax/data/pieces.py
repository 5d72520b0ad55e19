"""Finds the characters of a text that each token stands for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lmirl_jax.data.offsets import Offsets, shared_length
from lmirl_jax.data.vocabularies import Vocabulary, as_vocabulary


def encode_with_offsets(vocabulary: Any, text: str) -> tuple[Int32[np.ndarray, " n"], Offsets]:
    """The tokens of a text, without EOS, and the characters at which each begins and ends.

    If a character has several bytes, the last byte stands for it, and the others for nothing.

    Args:
        vocabulary: a `Vocabulary`, or SeqIO's.
        text: the text.
    """
    vocabulary = as_vocabulary(vocabulary)
    ids = vocabulary.encode(text)
    offsets = vocabulary.text_offsets(text, ids)
    if offsets is None:
        _, decoded = decode_with_offsets(vocabulary, ids)
        offsets = tuple((min(begin, len(text)), min(end, len(text))) for begin, end in decoded)
    return np.array(ids, np.int32), offsets


def decode_with_offsets(vocabulary: Any, tokens: Sequence[int] | np.ndarray) -> tuple[str, Offsets]:
    """The text of tokens, as the vocabulary decodes it, and the characters at which each token begins and ends."""
    vocabulary = as_vocabulary(vocabulary)
    ids = [int(token) for token in tokens]
    text = vocabulary.decode(ids)
    offsets = vocabulary.token_offsets(ids, text)
    return text, _prefix_offsets(vocabulary, ids, text) if offsets is None else offsets


def _prefix_offsets(vocabulary: Vocabulary, ids: list[int], text: str) -> Offsets:
    """Decodes every prefix of the tokens: a token ends where the text of its prefix no longer agrees with the whole text."""
    offsets, end = [], 0
    for count in range(1, len(ids) + 1):
        so_far = vocabulary.decode(ids[:count])
        begin, end = end, max(end, shared_length(so_far, text))
        offsets.append((begin, end))
    return tuple(offsets)

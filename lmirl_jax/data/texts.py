"""The texts of an example as the user wrote them, and the text that a vocabulary writes for unknown tokens."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.data.vocabularies import Vocabulary

# This is a Unicode noncharacter: no text of a user holds it, so that it equals nothing in a reference.
NO_CHARACTER = "\ufdd0"


def stored_text(features: Mapping[str, Any], feature: str) -> str | None:
    """The text that a task tokenised, as SeqIO's `tokenize` stores it; None where it stores none, or no UTF-8."""
    text = features.get(f"{feature}_pretokenized")
    return text if isinstance(text, str) and not has_surrogates(text) else None


def unknown_surface(vocabulary: Vocabulary) -> str:
    """The text that the vocabulary writes for an unknown token, such as `⁇`; '' if it writes nothing."""
    if vocabulary.unk_id is None:
        return ""
    return str(vocabulary.decode([vocabulary.unk_id])).strip()


def mark_unknown(prediction: str, reference: str, surface: str) -> str:
    """If the reference holds `surface`, replaces unknown tokens of the prediction by a character that no reference holds.

    An unknown token stands for some character that the vocabulary lacks. So it must not equal any character, not even
    the sign that is written for it.
    """
    return prediction.replace(surface, NO_CHARACTER) if surface and surface in reference else prediction


def has_surrogates(text: str) -> bool:
    """Whether the text holds halves of surrogate pairs, as which bytes that are not UTF-8 are read."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False

"""Counts the texts of a split that a vocabulary cannot hold, and reports them with an example."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from lmirl_jax.data.vocabularies import Vocabulary

# The number of characters of an example in a message.
EXCERPT = 60
COMPARED = "metrics compare answers with the targets as they stand, which such tokens cannot write: "
REMEDY = (
    "replace these characters in the data, or set VOCABULARY_PATH to a vocabulary that has them (None: bytes, which hold "
    "every text)"
)


@dataclasses.dataclass
class Losses:
    """Counts the texts of one feature that their tokens do not reproduce.

    Args:
        unknown: the number of texts with unknown tokens.
        changed: the number of other texts that decoding changes.
        unknown_example: an example of the first kind, as the user wrote it and as it is decoded.
        changed_example: an example of the second kind, in the same form.
    """

    unknown: int = 0
    changed: int = 0
    unknown_example: Sequence[str] = ()
    changed_example: Sequence[str] = ()

    def add(self, vocabulary: Vocabulary, tokens: Sequence[int] | np.ndarray, text: str | None) -> None:
        """Counts a text.

        Args:
            vocabulary: the vocabulary of the tokens.
            tokens: the tokens of the text, with or without EOS.
            text: the text that the user wrote; None if it is not known.
        """
        if vocabulary.holds_every_text:
            return
        ids = np.asarray(tokens).tolist()
        if vocabulary.unk_id is not None and vocabulary.unk_id in ids:
            self.unknown += 1
            if not self.unknown_example:
                back = vocabulary.decode(ids)
                self.unknown_example = (back if text is None else text, back)
        elif text is not None and _changes(vocabulary, ids, text):
            self.changed += 1
            if not self.changed_example:
                self.changed_example = (text, vocabulary.decode(vocabulary.encode(text)))

    def merge(self, other: "Losses") -> None:
        """Adds the counts of texts that come after these."""
        self.unknown += other.unknown
        self.changed += other.changed
        self.unknown_example = self.unknown_example or other.unknown_example
        self.changed_example = self.changed_example or other.changed_example


def describe_losses(name: str, total: int, losses: Mapping[str, Losses]) -> str | None:
    """Says in one line how many of `total` examples the vocabulary changes; None if it changes none.

    Args:
        name: the name of the data, with which the line begins.
        total: the number of examples.
        losses: the losses by the name of the feature.
    """
    parts = []
    for feature, lost in losses.items():
        if lost.unknown:
            before, after = _excerpts(*lost.unknown_example)
            parts.append(
                f"{lost.unknown} of {total} {feature} hold characters that the vocabulary lacks ({before!r} is read as {after!r})"
            )
        if lost.changed:
            before, after = _excerpts(*lost.changed_example)
            parts.append(
                f"{lost.changed} of {total} {feature} are changed by the vocabulary ({before!r} is read as {after!r})"
            )
    lost = losses.get("targets", Losses())
    compared = COMPARED if lost.unknown + lost.changed else ""
    return f"{name}: {', '.join(parts)}; {compared}{REMEDY}" if parts else None


def _changes(vocabulary: Vocabulary, ids: list[int], text: str) -> bool:
    """Whether decoding changes the text, apart from white space at its ends.

    If a task has changed the tokens after it stored the text, the text is encoded again for the comparison.
    """
    expected = text.strip()
    if vocabulary.decode(ids).strip() == expected:
        return False
    return vocabulary.decode(vocabulary.encode(text)).strip() != expected


def _excerpts(*texts: str) -> list[str]:
    """The part of each text around the place from which they differ."""
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    start = max(0, sum(1 for _ in shared) - EXCERPT // 3)
    ends = [min(len(text), start + EXCERPT) for text in texts]
    return [
        ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
        for text, end in zip(texts, ends, strict=True)
    ]

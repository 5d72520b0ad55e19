"""What a vocabulary cannot hold of a split's texts: counted when they are tokenised, and told with an example."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from lmirl_jax.data.vocabularies import Vocabulary

EXCERPT = 60  # Characters of an example in a message.
COMPARED = "metrics compare answers with the targets as they stand, which such tokens cannot write: "
REMEDY = (
    "replace these characters in the data, or set VOCABULARY_PATH to a vocabulary that has them (None: bytes, which hold "
    "every text)"
)


@dataclasses.dataclass
class Losses:
    """Of the texts of one feature: how many hold unknown tokens, how many others come back changed, and an example of each.

    An example is a pair of texts: as the user wrote it, and as it is decoded from its tokens.
    """

    unknown: int = 0
    changed: int = 0
    unknown_example: Sequence[str] = ()
    changed_example: Sequence[str] = ()

    def add(self, vocabulary: Vocabulary, tokens: Sequence[int] | np.ndarray, text: str | None) -> None:
        """Counts a text.

        Args:
            vocabulary: the one that tokenised it.
            tokens: of the text, with EOS or without.
            text: as the user wrote it; None where that is not known.
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


def describe_losses(name: str, total: int, losses: Mapping[str, Losses]) -> str | None:
    """One line that says what is lost of `total` examples, by feature; None where nothing is.

    Args:
        name: of the data, at the beginning of the line.
        total: how many examples there are.
        losses: by the feature's name.
    """
    parts = []
    for feature, lost in losses.items():
        if lost.unknown:
            written, back = _excerpts(*lost.unknown_example)
            parts.append(
                f"{lost.unknown} of {total} {feature} hold characters that the vocabulary lacks ({written!r} is read as {back!r})"
            )
        if lost.changed:
            written, back = _excerpts(*lost.changed_example)
            parts.append(
                f"{lost.changed} of {total} {feature} are changed by the vocabulary ({written!r} is read as {back!r})"
            )
    lost = losses.get("targets", Losses())
    compared = COMPARED if lost.unknown + lost.changed else ""
    return f"{name}: {', '.join(parts)}; {compared}{REMEDY}" if parts else None


def _changes(vocabulary: Vocabulary, ids: list[int], text: str) -> bool:
    """Whether the text comes back otherwise, white space at its ends aside.

    A task may have changed the tokens after it kept the text: then the text's own tokens decide.
    """
    written = text.strip()
    if vocabulary.decode(ids).strip() == written:
        return False
    return vocabulary.decode(vocabulary.encode(text)).strip() != written


def _excerpts(*texts: str) -> list[str]:
    """The part of each text around the place from which they differ."""
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    start = max(0, sum(1 for _ in shared) - EXCERPT // 3)
    ends = [min(len(text), start + EXCERPT) for text in texts]
    return [
        ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")
        for text, end in zip(texts, ends, strict=True)
    ]

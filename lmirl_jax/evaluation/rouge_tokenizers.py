"""Which words ROUGE compares: rouge-score's own, of a to z and digits, or those of any language; and what is lost, in a line."""

import functools
from collections.abc import Sequence

from lmirl_jax.evaluation.words import tell_once, unicode_words

ROUGE_TOKENIZERS = ("auto", "ascii", "unicode")


class RougeTokenizer:
    """What rouge-score takes as a tokenizer: words of any language, English ones of more than three letters stemmed if asked."""

    def __init__(self, use_stemmer: bool):
        self._use_stemmer = use_stemmer

    def tokenize(self, text: str) -> list[str]:
        words = unicode_words(text)
        if not self._use_stemmer:
            return words
        return [_stemmer().stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def rouge_tokenizer(references: Sequence[str]) -> str:
    """The one that suits a prompt's references: "unicode" where rouge-score's would cut at least half of their words."""
    words = [word for text in references for word in unicode_words(text)]
    return "unicode" if 0 < len(words) <= 2 * len(_cut(words)) else "ascii"


def tell_what_is_lost(references: Sequence[str], chosen: str, asked: str) -> None:
    """Warns, once of each, of words that rouge-score's tokenizer cuts, of another in its place, and of texts without words."""
    words = [word for text in references for word in unicode_words(text)]
    cut = _cut(words)
    if not words:
        tell_once("ROUGE: a reference without a word scores 0, even against itself: %r", references[0])
    elif cut and chosen == "ascii":
        tell_once(
            "ROUGE: rouge-score's words hold a to z and digits alone, and cut such as %r; tokenize='unicode' keeps them whole",
            cut[0],
        )
    elif cut and asked == "auto":
        tell_once(
            "ROUGE: compares words of any language (tokenize='unicode') where rouge-score's own (tokenize='ascii') would cut "
            "half of a reference's or more, such as %r",
            cut[0],
        )


def _cut(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.isascii()]


@functools.cache
def _stemmer():
    from nltk.stem.porter import PorterStemmer  # It takes a second to load.

    return PorterStemmer()

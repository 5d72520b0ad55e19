"""The words that ROUGE compares: rouge-score's own (a to z and digits), or those of any language, with warnings of cut words."""

import functools
from collections.abc import Sequence

from lmirl_jax.evaluation.words import unicode_words, warn_once

ROUGE_TOKENIZERS = ("auto", "ascii", "unicode")


class RougeTokenizer:
    """A tokenizer for rouge-score: words of any language; `use_stemmer` stems English words of more than three letters."""

    def __init__(self, use_stemmer: bool):
        self._use_stemmer = use_stemmer

    def tokenize(self, text: str) -> list[str]:
        words = unicode_words(text)
        if not self._use_stemmer:
            return words
        return [_stemmer().stem(word) if len(word) > 3 and word.isascii() else word for word in words]


def rouge_tokenizer(references: Sequence[str]) -> str:
    """The tokenizer for the references of a prompt: "unicode" where rouge-score's own would cut at least half of their words."""
    words = [word for text in references for word in unicode_words(text)]
    return "unicode" if 0 < len(words) <= 2 * len(_cut(words)) else "ascii"


def warn_of_cut_words(references: Sequence[str], tokenizer: str, setting: str) -> None:
    """Warns, once for each, of words that rouge-score's tokenizer cuts, of the use of another one, and of texts without words."""
    words = [word for text in references for word in unicode_words(text)]
    cut = _cut(words)
    if not words:
        warn_once("ROUGE: a reference without a word scores 0, even against itself: %r", references[0])
    elif cut and tokenizer == "ascii":
        warn_once(
            "ROUGE: rouge-score's words hold a to z and digits alone, and cut such as %r; tokenize='unicode' keeps them whole",
            cut[0],
        )
    elif cut and setting == "auto":
        warn_once(
            "ROUGE: compares words of any language (tokenize='unicode') where rouge-score's own (tokenize='ascii') would cut "
            "half of a reference's or more, such as %r",
            cut[0],
        )


def _cut(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.isascii()]


@functools.cache
def _stemmer():
    # Imported here, because NLTK takes a second to load.
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()

"""The words of a text in any language."""

import logging
import re
import unicodedata

_log = logging.getLogger(__name__)
_told: set[str] = set()

# Written without spaces between words: Thai, Lao, Burmese, Khmer, Japanese kana and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)


def unicode_words(text: str) -> list[str]:
    """Runs of letters, their marks and digits, in lower case; of scripts without spaces between words each character.

    Of English text they are the words of rouge-score's own tokenizer. Equal characters of several forms (full and half
    width, composed and not) become one by NFKC; marks that do not show, such as joiners, are left out.
    """
    words: list[str] = []
    goes_on = False  # Whether a letter would continue the last word.
    marked = False  # Whether a mark would.
    for character in unicodedata.normalize("NFKC", text.lower()):
        kind = unicodedata.category(character)
        if kind == "Cf":
            continue
        if kind[0] == "M" and marked:
            words[-1] += character
        elif kind[0] not in "LMN":
            goes_on = marked = False
        else:
            alone = _UNSPACED.match(character) is not None
            if goes_on and not alone:
                words[-1] += character
            else:
                words.append(character)
            goes_on, marked = not alone, True
    return words


def spread_characters(text: str) -> str:
    """The text with a space on each side of every character of a script without spaces; other text stays as it is."""
    return _UNSPACED.sub(r" \g<0> ", text)


def is_unspaced(text: str) -> bool:
    """Whether a text has a run of characters of a script without spaces, which a tokenizer at spaces takes for one word."""
    return re.search(_UNSPACED.pattern * 2, text) is not None


def tell_once(line: str, *example: str) -> None:
    """Warns, once of each line: metrics are asked for prompt by prompt, and again at every evaluation."""
    if line not in _told:
        _told.add(line)
        _log.warning(line, *example)

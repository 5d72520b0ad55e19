"""The words of a text in any language."""

import logging
import re
import unicodedata

_log = logging.getLogger(__name__)
_warned: set[str] = set()

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Japanese kana and Chinese characters.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]"
)


def unicode_words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, marks and digits, or one character in a script without spaces.

    For English text they are the words of rouge-score's own tokenizer. NFKC maps the forms of a character (full and half width,
    composed and decomposed) to one; invisible marks, such as joiners, are left out.
    """
    words: list[str] = []
    # Whether the next letter, and whether the next mark, would continue the last word.
    goes_on = marked = False
    for character in unicodedata.normalize("NFKC", text.lower()):
        kind = unicodedata.category(character)
        if kind == "Cf":
            continue
        if kind[0] == "M" and marked:
            words[-1] += character
        elif kind[0] not in "LMN":
            goes_on = marked = False
        else:
            alone = _WITHOUT_SPACES.match(character) is not None
            if goes_on and not alone:
                words[-1] += character
            else:
                words.append(character)
            goes_on, marked = not alone, True
    return words


def spread_characters(text: str) -> str:
    """The text with a space on each side of every character of a script without spaces; other text stays as it is."""
    return _WITHOUT_SPACES.sub(r" \g<0> ", text)


def lacks_spaces(text: str) -> bool:
    """Whether a text has two adjacent characters of a script without spaces: a tokenizer at spaces takes them for one word."""
    return re.search(_WITHOUT_SPACES.pattern * 2, text) is not None


def warn_once(line: str, *example: str) -> None:
    """Logs a warning the first time only, because metrics run prompt by prompt and again at every evaluation."""
    if line not in _warned:
        _warned.add(line)
        _log.warning(line, *example)

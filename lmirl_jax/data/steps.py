"""Splits an answer into steps: its lines, its sentences, or the equations of a derivation on one line."""

import re

Span = tuple[int, int]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SEPARATORS = (re.compile(r"\n\s*"), re.compile(r" ; "), _SENTENCE_END)


def split_steps(text: str, separator: str | None = None) -> list[Span]:
    """Splits an answer into steps: the range of characters of each.

    Args:
        text: the answer.
        separator: a regular expression for the text between two steps. None takes the first of these that occurs in the text:
            a new line; ` ; `; a full stop, exclamation or question mark with white space after it; and white space where
            every word is an equation, as in `3+8=11 5+9=14`.

    Returns:
        Ranges of characters in the order of the text, none of them empty; a single one where no separator occurs.
    """
    if separator is not None:
        return _split(text, re.compile(separator))
    for pattern in _SEPARATORS:
        steps = _split(text, pattern)
        if len(steps) > 1:
            return steps
    if all("=" in word for word in text.split()):
        return _split(text, re.compile(r"\s+"))
    return _split(text, re.compile(r"(?!)"))


def _split(text: str, pattern: re.Pattern) -> list[Span]:
    spans, begin = [], 0
    for match in pattern.finditer(text):
        spans.append((begin, match.start()))
        begin = match.end()
    return [(begin, end) for begin, end in [*spans, (begin, len(text))] if text[begin:end].strip()]

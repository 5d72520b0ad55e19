"""An answer's steps: its lines, its sentences, or the sums of a derivation on one line."""

import re

Span = tuple[int, int]

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SEPARATORS = (re.compile(r"\n\s*"), re.compile(r" ; "), _SENTENCE_END)


def split_steps(text: str, separator: str | None = None) -> list[Span]:
    """Where each step of an answer begins and ends.

    Args:
        text: the answer.
        separator: a regular expression of what stands between two steps. None for a guess, the first of these that the
            text has: a new line; ` ; `; a full stop, exclamation or question mark and white space; white space, where
            every word is an equation, as in `3+8=11 5+9=14`.

    Returns:
        Spans of characters in the order of the text, none of them empty; one alone where nothing separates.
    """
    if separator is not None:
        return _between(text, re.compile(separator))
    for pattern in _SEPARATORS:
        steps = _between(text, pattern)
        if len(steps) > 1:
            return steps
    if all("=" in word for word in text.split()):
        return _between(text, re.compile(r"\s+"))
    return _between(text, re.compile(r"(?!)"))


def _between(text: str, pattern: re.Pattern) -> list[Span]:
    spans, begin = [], 0
    for match in pattern.finditer(text):
        spans.append((begin, match.start()))
        begin = match.end()
    return [(begin, end) for begin, end in [*spans, (begin, len(text))] if text[begin:end].strip()]

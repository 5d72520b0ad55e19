"""Texts with missing parts."""

import re

GAP = "___"  # A missing part


def missing_parts(answer: str, gapped: str) -> str | None:
    """What stands in the gaps of an answer, joined by GAP; None where the answer has something else between them."""
    match = re.fullmatch("(.*?)".join(map(re.escape, gapped.split(GAP))), answer, re.DOTALL)
    return None if match is None else GAP.join(match.groups())


def fill(gapped: str, parts: str) -> str | None:
    """The answer with the parts in its gaps; None where their numbers differ."""
    given, missing = gapped.split(GAP), parts.split(GAP)
    if len(missing) != len(given) - 1:
        return None
    return "".join(text for pair in zip(given, [*missing, ""], strict=True) for text in pair)

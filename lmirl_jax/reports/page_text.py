"""The words of a page around its figures and tables."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class PageText:
    """The words of a page.

    Args:
        title: the heading of the page.
        verdict: the paragraphs at the top of the page, for example from `evaluation.verdict`.
        settings: the settings of the run; several values under one name are lines of code, such as commands.
        lead: a sentence below the heading.
    """

    title: str
    verdict: Sequence[str]
    settings: Mapping[str, str | Sequence[str]]
    lead: str = ""

"""A matplotlib figure as an SVG element that lives inside a page and takes the page's colours and font."""

import html
import io
import re
from typing import Any

from lmirl_jax.reports.figures import GRID, INK, MUTED, SERIES

# The CSS variables of the page by the colour that they replace; matplotlib's default black and white are ink and paper.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--hairline",
    "#000000": "--ink",
    "#ffffff": "--card",
    **{colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)},
}
# The most CSS pixels for each point: letters of a figure on a wide screen are then no larger than the text around it.
WIDEST = 1.45


def inline_svg(figure: Any, *, label: str, prefix: str) -> str:
    """Renders a figure for use inside HTML: text stays text, colours follow the page's light or dark theme.

    Args:
        figure: a `matplotlib.figure.Figure`.
        label: a description of the figure, for readers who do not see it.
        prefix: the prefix of every id inside, different for each figure of a page.

    Returns:
        One `svg` element without external references, the same for the same figure.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lmirl"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    # A text without a font takes the font of the page. A text without a fill would be black, but the page has a style for it.
    text = re.sub(r"font-family:[^;\"]*;?", "", text)
    text = re.sub(r"(style=\"[^\"]*\")", lambda match: _with_variables(match[0]), text)
    text = re.sub(r"\bid=\"", f'id="{prefix}', text)
    text = re.sub(r"(xlink:href=\"|url\()#", rf"\1#{prefix}", text)
    width = float(re.search(r"viewBox=\"\S+ \S+ (\S+) ", text)[1])  # type: ignore[index]
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\" height=\"[^\"]*\"", r"\1", text, count=1)
    opening = f'<svg role="img" aria-label="{html.escape(label)}" style="max-width:{width * WIDEST:.0f}px"'
    return text.replace("<svg", opening, 1).strip()


def _with_variables(style: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _variable(match[0]), style)


def _variable(colour: str) -> str:
    return f"var({VARIABLES[colour]})" if colour in VARIABLES else colour

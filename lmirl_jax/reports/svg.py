"""A matplotlib figure as an SVG element that lives inside a page and takes the page's colours and font."""

import html
import io
import re
from typing import Any

from lmirl_jax.reports.figures import GRID, INK, MUTED, SERIES

# The page's variables by the colour that stands for them; matplotlib's own black and white are ink and paper.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--hairline",
    "#000000": "--ink",
    "#ffffff": "--card",
    **{colour: f"--series-{i + 1}" for i, colour in enumerate(SERIES)},
}
WIDEST = 1.45  # CSS pixels a point, so that letters on a wide screen are no larger than the text around them.


def inline_svg(figure: Any, *, label: str, prefix: str) -> str:
    """Renders a figure for use inside HTML: text stays text, colours follow the page's light or dark theme.

    Args:
        figure: a `matplotlib.figure.Figure`.
        label: what the figure shows, for readers who do not see it.
        prefix: of every id inside, different for each figure of a page.

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
    # Without its own font a text takes the page's; without fill it is black, which the page's style sheet mends.
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

"""One self-contained HTML page: text, figures, tables and heat maps. It opens offline and runs no scripts."""

import html
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax import __version__
from lmirl_jax.reports.heatmap import STYLE as HEAT_STYLE
from lmirl_jax.reports.heatmap import Row, heat_map
from lmirl_jax.reports.page_style import STYLE
from lmirl_jax.types import UserError

TOO_FEW = "too few"
# The forms of numbers in tables: `0.5`, `0.5 ±0.1`, `+0.5 [+0.4, +0.6]`, `3 of 9`, and `-` or `too few` where there is none.
NUMBER = re.compile(
    rf"-|{TOO_FEW}|\d+ of \d+"
    r"|(?P<main>[-+−]?[\d.,]+%?)(?: (?P<spread>±[\d.]+)| (?P<range>\[[-+−]?[\d.]+, [-+−]?[\d.]+\]))?"
)
# The most characters of a text in columns; longer texts are cut.
LONGEST_TEXT = 1200
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Report:
    """A page that is built from top to bottom; every method except `html` and `write` returns the report.

    Texts are plain: they are escaped, and only `` `code` `` is marked up. A notebook displays a report that is the last line of a
    cell.
    """

    def __init__(self, title: str, lead: str = ""):
        """Starts a page with a title and a sentence below it."""
        self._title = title
        self._lead = lead
        self._sections: list[list[str]] = []
        self._figures = 0

    def section(self, heading: str, *paragraphs: str, callout: bool = False) -> "Report":
        """Starts a section, to which the next parts are added. A callout has a coloured edge."""
        opening = '<section class="callout">' if callout else "<section>"
        self._sections.append([f"{opening}<h2>{html.escape(heading)}</h2>"])
        return self.text(*paragraphs)

    def text(self, *paragraphs: str) -> "Report":
        """Adds paragraphs."""
        return self._add(*(f"<p>{_inline(paragraph)}</p>" for paragraph in paragraphs))

    def subheading(self, text: str) -> "Report":
        """Adds a heading within the section."""
        return self._add(f"<h3>{_inline(text)}</h3>")

    def preformatted(self, text: str) -> "Report":
        """Adds preformatted lines, such as a command or a log."""
        return self._add(f"<pre>{html.escape(text)}</pre>")

    def facts(self, items: Mapping[str, str | Sequence[str]]) -> "Report":
        """Adds names with their values; several values become lines of code, such as commands."""
        return self._add(
            "<dl>", *(f"<dt>{_inline(n)}</dt><dd>{_fact(v)}</dd>" for n, v in items.items()), "</dl>"
        )

    def figures(self, *figures: Any, captions: Sequence[str] = (), caption: str = "") -> "Report":
        """Adds matplotlib figures, side by side where the screen is wide enough.

        Args:
            figures: each a `matplotlib.figure.Figure`.
            captions: one for each figure, or none.
            caption: a text below all of them.
        """
        from lmirl_jax.reports.svg import inline_svg

        parts = []
        for i, figure in enumerate(figures):
            self._figures += 1
            own_caption = captions[i] if captions else ""
            picture = inline_svg(
                figure, label=own_caption or caption or self._title, prefix=f"f{self._figures}-"
            )
            below = f"<figcaption>{_inline(own_caption)}</figcaption>" if own_caption else ""
            parts.append(f"<figure>{picture}{below}</figure>")
        row = parts[0] if len(parts) == 1 else f'<div class="figures">{"".join(parts)}</div>'
        return self._add(row, *_caption(caption))

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        groups: Sequence[tuple[str, int]] = (),
        caption: str = "",
    ) -> "Report":
        """Adds a table; columns of numbers are aligned to the right, and their `±` or `[from, to]` is set smaller.

        Args:
            header: the name of each column.
            rows: the texts of each row, one for each column.
            groups: headings above the header, each with the number of columns that it spans.
            caption: a text below the table.

        Raises:
            UserError: a row or the groups that do not have as many columns as the header.
        """
        widths = {len(row) for row in rows} | ({sum(span for _, span in groups)} if groups else set())
        if widths - {len(header)}:
            raise UserError(
                f"report: a table with {len(header)} columns has rows or groups of {sorted(widths)}"
            )
        return self._add(_table(header, rows, groups), *_caption(caption))

    def columns(self, texts: Mapping[str, Sequence[str]]) -> "Report":
        """Adds lists of texts side by side, each under its name; a narrow screen has them one below the other."""
        parts = [
            f"<div><h4>{html.escape(name)}</h4><ol>{''.join(map(_item, items))}</ol></div>"
            for name, items in texts.items()
        ]
        return self._add(f'<div class="columns">{"".join(parts)}</div>')

    def heat_map(self, rows: Sequence[Row], *, caption: str = "", unit: str = "nats") -> "Report":
        """Adds the tokens of one or more answers, coloured by their rewards on one scale."""
        return self._add(heat_map(rows, unit=unit), *_caption(caption))

    def html(self) -> str:
        """The whole page."""
        sections = "\n".join("\n".join(parts) + "</section>" for parts in self._sections)
        lead = f'<p class="lead">{_inline(self._lead)}</p>' if self._lead else ""
        title = html.escape(self._title)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{STYLE}{HEAT_STYLE}</style></head>\n"
            f"<body><main><header><h1>{title}</h1>{lead}</header>\n{sections}\n"
            f"<footer>lmirl_jax {__version__}</footer></main></body></html>\n"
        )

    def __repr__(self) -> str:
        return f"Report({self._title!r})"

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks: the frame keeps the styles of page and notebook apart."""
        grow = "this.style.height=this.contentDocument.documentElement.scrollHeight+4+'px'"
        return (
            f'<iframe srcdoc="{html.escape(self.html())}" title="{html.escape(self._title)}" onload="{grow}" '
            'style="width:100%;height:26rem;border:0"></iframe>'
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page, completely or not at all; makes the folder where it is missing.

        Raises:
            UserError: the place cannot be written.
        """
        folder = os.path.dirname(os.path.abspath(path))
        page = self.html().encode()
        temporary = None
        try:
            os.makedirs(folder, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".report-", suffix=".html")
            with os.fdopen(handle, "wb") as file:
                file.write(page)
            # mkstemp makes files that only their owner can read.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            temporary = None
        except OSError as error:
            raise UserError(
                f"report: cannot write {os.fspath(path)}: {error.strerror}; choose a folder that you may write to"
            ) from error
        finally:
            if temporary is not None:
                os.unlink(temporary)

    def _add(self, *parts: str) -> "Report":
        if not self._sections:
            raise UserError("report: nothing can be added before the first section; call section() first")
        self._sections[-1] += parts
        return self


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _fact(value: str | Sequence[str]) -> str:
    return _inline(value) if isinstance(value, str) else "<pre>" + html.escape("\n".join(value)) + "</pre>"


def _item(text: str) -> str:
    visible = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return f"<li>{html.escape(visible)}</li>"


def _caption(text: str) -> list[str]:
    return [f'<p class="caption">{_inline(text)}</p>'] if text else []


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], groups: Sequence[tuple[str, int]]) -> str:
    starts = [sum(span for _, span in groups[:i]) for i in range(len(groups))]
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    classes = [_column_class(column, i in starts[1:]) for i, column in enumerate(columns)]
    above = "".join(
        f'<th colspan="{span}" scope="colgroup"{_class("edge" if start else "")}>{_inline(text)}</th>'
        for (text, span), start in zip(groups, starts, strict=True)
    )
    names = "".join(
        f'<th scope="col"{_class(kind)}>{_inline(text)}</th>'
        for text, kind in zip(header, classes, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{_class(kind)}>{_entry(text)}</td>" for text, kind in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    head = (f'<tr class="group">{above}</tr>' if groups else "") + f"<tr>{names}</tr>"
    kind = _class("dense" if len(header) >= 8 else "")
    return f'<div class="scroll"><table{kind}><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _column_class(column: Sequence[str], edge: bool) -> str:
    number = all(NUMBER.fullmatch(text) for text in column)
    return " ".join(["number"] * number + ["edge"] * edge)


def _entry(text: str) -> str:
    number = NUMBER.fullmatch(text)
    if number is None or not (number["spread"] or number["range"]):
        return _inline(text)
    small = (
        f"<small>{number['spread']}</small>"
        if number["spread"]
        else f'<small class="range">{number["range"]}</small>'
    )
    return html.escape(number["main"]) + small


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

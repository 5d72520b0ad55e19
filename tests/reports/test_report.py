import html
import os
import re
import stat

import pytest
from matplotlib.figure import Figure

from lmirl_jax.reports import heatmap
from lmirl_jax.reports.report import Report
from lmirl_jax.types import UserError

EVIL = '<script>alert("1")</script>'


def small_figure(title="loss"):
    figure = Figure(figsize=(3, 2))
    figure.add_subplot().plot([0, 1], [0, 1])
    figure.axes[0].set_title(title)
    return figure


def full_report():
    return (
        Report(EVIL, EVIL)
        .section(EVIL, EVIL, callout=True)
        .subheading(EVIL)
        .preformatted(EVIL)
        .facts({EVIL: EVIL, "commands": [EVIL, "b"]})
        .figures(small_figure(EVIL), small_figure(), captions=[EVIL, "b"], caption=EVIL)
        .table([EVIL, "b"], [[EVIL, "0.5 ±0.1"]], groups=[(EVIL, 1), ("g", 1)], caption=EVIL)
        .heat_map([heatmap.Row(EVIL, [EVIL], [1.0])], caption=EVIL, unit=EVIL)
    )


def test_everything_is_escaped():
    page = full_report().html()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 12


def test_page_needs_nothing_from_outside():
    page = full_report().html()
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    assert "default-src 'none'" in page and 'name="viewport"' in page and "prefers-color-scheme: dark" in page


def test_a_notebook_shows_the_page_in_a_frame():
    page = full_report()
    (source,) = re.findall(r'^<iframe srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(source) == page.html() and "<script" not in page._repr_html_()
    assert repr(Report("a title")) == "Report('a title')"


def test_ids_of_figures_are_unique_and_their_references_meet_them():
    page = full_report().html()
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids)) > 10
    assert set(re.findall(r"(?:xlink:href=\"|url\()#([^\")]+)", page)) <= set(ids)


def test_figures_follow_the_theme():
    page = Report("t").section("s").figures(small_figure()).html()
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "#000000" not in svg and "#ffffff" not in svg and "font-family" not in svg
    assert "var(--ink)" in svg and ">loss<" in svg  # Text is text.


def test_the_same_report_is_the_same_page():
    assert full_report().html() == full_report().html()


def test_table_sets_errors_smaller_and_numbers_right():
    page = Report("t").section("s").table(["name", "n"], [["a", "0.5 ±0.1"], ["b", "-"]]).html()
    assert '<td class="number">0.5<small>±0.1</small></td>' in page and '<td class="number">-</td>' in page
    assert "<td>a</td>" in page and '<th scope="col" class="number">n</th>' in page


def test_table_without_rows_and_of_unequal_rows():
    assert "<tbody></tbody>" in Report("t").section("s").table(["a", "b"], []).html()
    with pytest.raises(UserError, match="2 columns has rows or groups of"):
        Report("t").section("s").table(["a", "b"], [["1"]])
    with pytest.raises(UserError, match="2 columns has rows or groups of"):
        Report("t").section("s").table(["a", "b"], [["1", "2"]], groups=[("g", 3)])


def test_text_has_code_and_nothing_else():
    page = Report("t").section("s", "run `lmirl train` <b>now</b>").html()
    assert "<p>run <code>lmirl train</code> &lt;b&gt;now&lt;/b&gt;</p>" in page


def test_nothing_stands_outside_a_section():
    with pytest.raises(UserError, match="before the first section"):
        Report("t").text("lost")


def test_write_makes_the_folder_and_leaves_one_readable_file(tmp_path):
    path = tmp_path / "a b" / "report.html"
    Report("first").section("s").write(path)
    Report("second").section("s").write(str(path))
    assert os.listdir(path.parent) == ["report.html"]
    assert "second" in path.read_text(encoding="utf-8")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_write_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Report("t").section("s").write("report.html")
    assert os.listdir() == ["report.html"]


def test_a_path_that_cannot_be_written_is_one_line_and_leaves_no_partial_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "report.html", tmp_path / "folder"):
        with pytest.raises(UserError, match=r"report: cannot write .*; choose") as error:
            Report("t").section("s").write(place)
        assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]

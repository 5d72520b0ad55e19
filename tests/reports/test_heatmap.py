import html.parser
import re

import pytest

from lmirl_jax.reports import heatmap
from lmirl_jax.types import UserError

STRENGTH = re.compile(r"rgba\(var\(--(positive|negative)\),([\d.]+)\)")


class Balanced(html.parser.HTMLParser):
    """Follows the tags of a fragment; `open` is empty where each was closed in turn, `text` is what a reader sees."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def rows(*rewards, tokens=None):
    return [heatmap.Row("answer", tokens or ["t"] * len(rewards), list(rewards))]


def test_colours_are_centred_at_zero():
    page = heatmap.heat_map(rows(0.5, -0.5, 0.25, 0.0))
    assert STRENGTH.findall(page) == [
        ("positive", "1.000"),
        ("negative", "1.000"),
        ("positive", "0.500"),
        ("positive", "0.000"),
    ]


def test_rows_share_one_scale():
    two = [heatmap.Row("right", ["a"], [2.0]), heatmap.Row("wrong", ["b"], [-1.0])]
    page = heatmap.heat_map(two)
    assert STRENGTH.findall(page) == [("positive", "1.000"), ("negative", "0.500")]
    assert page.count('class="heat-legend"') == 1 and "<b>right</b>" in page and "<b>wrong</b>" in page


def test_an_outlier_saturates_and_the_legend_says_so():
    page = heatmap.heat_map(rows(*[0.1] * 20, -3.0))
    assert STRENGTH.findall(page)[0] == ("positive", "0.333") and STRENGTH.findall(page)[-1] == (
        "negative",
        "1.000",
    )
    assert "≤ −0.30" in page and "≥ +0.30" in page
    assert 'title="−3.00 nats"' in page
    assert "≤" not in heatmap.heat_map(rows(0.1, -0.2))


def test_a_token_without_reward():
    page = heatmap.heat_map(rows(0.5, None, tokens=["a", "b"]))
    assert '<span class="none" title="no reward" tabindex="-1">b</span>' in page
    assert "dotted: no reward" in page and "sum +0.50 nats" in page
    assert "sum " not in heatmap.heat_map(rows(None))


def test_values_are_on_hover_and_in_a_list():
    page = heatmap.heat_map(rows(0.5, -0.0123, None, tokens=["x", "y", "z"]))
    assert 'title="+0.50 nats"' in page and 'title="−0.0123 nats"' in page
    assert "<code>x</code> +0.50" in page and "<code>z</code> –" in page


def test_everything_is_escaped():
    evil = '<script>alert("1")</script>'
    page = heatmap.heat_map([heatmap.Row(evil, [evil, "</span>", "&amp;"], [1.0, -1.0, None])], unit=evil)
    parsed = Balanced(page)
    assert "script" not in parsed.tags and parsed.open == []
    assert parsed.text.count(evil) > 3 and "&amp;" in parsed.text


def test_white_space_is_visible():
    text = Balanced(heatmap.heat_map(rows(1, 1, 1, 1, 1, tokens=[" ", "\n", "\t", "", " a"]))).text
    assert text.startswith("answersum +5.00 nats␣↵⇥∅ a")


def test_all_zero_and_all_missing():
    assert STRENGTH.findall(heatmap.heat_map(rows(0.0, 0.0))) == [("positive", "0.000")] * 2
    assert STRENGTH.findall(heatmap.heat_map(rows(None, None))) == []


@pytest.mark.parametrize(
    "made, message",
    [
        ([], "no rows"),
        ([heatmap.Row("a", ["x"], [1.0, 2.0])], "row 'a' has 1 tokens and 2 rewards"),
        ([heatmap.Row("a", ["x", "y"], [1.0, float("nan")])], "row 'a', token 1 has reward nan"),
    ],
)
def test_errors(made, message):
    with pytest.raises(UserError, match=message):
        heatmap.heat_map(made)


def test_text_is_readable_on_the_full_colour():
    """WCAG contrast of at least 4.5 of ink on each colour, in light and in dark."""

    def luminance(rgb):
        parts = [c / 255 for c in rgb]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    from lmirl_jax.reports import page_style

    inks = re.findall(r"--ink: #(\w{6})", page_style.STYLE)
    themes = re.findall(r"--positive: ([\d, ]+); --negative: ([\d, ]+);", heatmap.STYLE)
    assert len(inks) == len(themes) == 2
    for ink, colours in zip(inks, themes, strict=True):
        for colour in colours:
            one, two = luminance(bytes.fromhex(ink)), luminance([int(c) for c in colour.split(",")])
            assert (max(one, two) + 0.05) / (min(one, two) + 0.05) >= 4.5


def test_a_note_stands_in_place_of_the_sum_and_marked_tokens_are_framed():
    page = heatmap.heat_map([heatmap.Row("answer", ["a", "b"], [1.0, 2.0], "return <3>", (1,))])
    assert "return &lt;3&gt;" in page and ">sum " not in page
    assert page.count('class="marked"') == 1 and re.search(r'class="marked"[^>]*>b<', page)
    assert "framed: what was changed" in page


def test_a_tap_reaches_a_token_and_the_tabulator_key_does_not():
    page = heatmap.heat_map(rows(1.0, None))
    assert page.count('tabindex="-1"') == 2

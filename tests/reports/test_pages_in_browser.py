"""Pages in a real browser: no console message, no request, nothing wider than the screen."""

import numpy as np
import pytest

from lmirl_jax.evaluation.front import Cell
from lmirl_jax.reports.heatmap import Row
from lmirl_jax.reports.page_text import PageText
from lmirl_jax.reports.quickstart_page import HeatMap, quickstart_report
from lmirl_jax.reports.trust_page import trust_report
from lmirl_jax.rewards.corruption_effects import CorruptionEffect

pytestmark = pytest.mark.e2e

WIDTH = "document.documentElement.scrollWidth"
TAP = """
(() => { const token = document.querySelector('.heat-tokens span[style]'); token.focus();
  return getComputedStyle(token, '::after').content; })()
"""


@pytest.fixture
def page(scored_answer, tmp_path):
    answers = [
        scored_answer(
            f"{i}+{j}=9 é",
            example=i,
            candidate=j,
            total=float(i - j),
            v_0=0.5 * i,
            metrics={"accuracy": j % 2.0},
        )
        for i in range(12)
        for j in range(4)
    ]
    effect = CorruptionEffect(
        "wrong digit",
        9,
        0.9,
        (0.8, 1.0),
        0.8,
        (0.7, 0.9),
        0.7,
        (0.6, 0.8),
        ((answers[0], answers[1], (2, 3)),),
    )
    path = tmp_path / "report.html"
    trust_report(
        path,
        scored={"MLE": [answers], "IQLearn": [answers]},
        corruptions={"IQLearn": [effect]},
        settings={"Command": ["lmirl report"]},
    )
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_a_report_opens_without_a_word_and_without_a_request(visit, page, width):
    opened = visit(page, WIDTH, "document.title", TAP, width=width)
    assert opened.console == [] and opened.requests == []
    assert opened.values[0] <= width
    assert opened.values[1] == "Can these rewards be trusted?"
    assert "nats" in opened.values[2]  # A tap shows the token's reward.


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_of_fronts_opens_as_quietly(visit, tmp_path, width):
    values = np.random.default_rng(0).random((2, 3, 3, 20)).tolist()
    metrics = ("accuracy", "distinct_valid", "self_bleu")
    cells = [
        Cell(run, 0, temperature, {}, dict(zip(metrics, values[i][j], strict=True)))
        for i, run in enumerate(("MLE", "IQLearn"))
        for j, temperature in enumerate((0.5, 1.0, 1.5))
    ]
    path = tmp_path / "report.html"
    quickstart_report(
        path,
        cells=cells,
        losses={"MLE": ([1, 2], [2.0, 1.0])},
        heatmaps=[HeatMap("IQLearn", [Row("right", ["4", "EOS"], [0.1, None])], "2+2")],
        text=PageText("Two objectives", ["The curves cross."], {"Commands": ["lmirl quickstart"]}),
    )
    opened = visit(path, WIDTH, width=width)
    assert opened.console == [] and opened.requests == []
    assert opened.values[0] <= width


def test_the_browser_tells_of_requests_and_of_errors(visit, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><html><head><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src http:\">"
        "</head><body><img src='http://127.0.0.1:9/x.png'><script>1</script></body></html>"
    )
    opened = visit(path)
    assert opened.requests == ["http://127.0.0.1:9/x.png"]
    assert any("Content Security Policy" in message for message in opened.console)

import numpy as np

from lmirl_jax.evaluation.front import Cell
from lmirl_jax.reports import HeatMap, PageText, Report, Row, add_sweep_table, quickstart_report


def cells():
    rng = np.random.default_rng(0)
    return [
        Cell(
            run,
            0,
            temperature,
            {},
            {name: rng.random(20).tolist() for name in ("accuracy", "distinct_valid", "self_bleu")},
        )
        for run in ("MLE", "IQ <b>Learn</b>")
        for temperature in (0.5, 1.0)
    ]


def test_quickstart_report_has_every_part(tmp_path):
    path = tmp_path / "report.html"
    quickstart_report(
        path,
        cells=cells(),
        losses={"MLE": ([1, 2], [2.0, 1.0]), "IQ <b>Learn</b>": ([1, 2], [2.0, 1.5])},
        heatmaps=[
            HeatMap(
                "IQLearn", [Row("right", ["4", "<script>"], [0.1, None])], "2+2", "The end has no reward."
            )
        ],
        text=PageText(
            "Two objectives",
            verdict=["The curves cross.", "By Self-BLEU they do not."],
            settings={"Commands": ["lmirl train --a", "lmirl train --b"], "Seeds": "0, 1"},
            lead="A tiny T5.",
        ),
        loss_note="With the TD term.",
    )
    page = path.read_text(encoding="utf-8")
    for part in (
        "The curves cross.",
        "By Self-BLEU they do not.",
        "A tiny T5.",
        "flattens the policy",
        "r_t = q_t - discount_t * v_{t+1}",
        "in nats",
        "lmirl train --a\nlmirl train --b",
        "With the TD term.",
        "Prompt: 2+2",
        "The end has no reward.",
        "Self-BLEU (reversed",
        "valid distinct answers per prompt",
    ):
        assert part in page, part
    assert page.count("<svg") == 3 and "<script" not in page and "<b>Learn" not in page


def test_measures_that_are_missing_are_left_out(tmp_path):
    bare = [Cell("MLE", 0, t, {"accuracy": 0.5, "distinct_valid": 1.0}) for t in (0.5, 1.0)]
    path = tmp_path / "report.html"
    quickstart_report(
        path,
        cells=bare,
        losses={"a": ([1], [1.0])},
        heatmaps=[],
        text=PageText("Two objectives", ["None."], {}),
    )
    page = path.read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "Self-BLEU" not in page and "Token rewards" not in page


def test_sweep_table_groups_columns_by_run():
    page_of = Report("t").section("s")
    add_sweep_table(page_of, cells(), ["accuracy", "self_bleu"])
    page = page_of.html()
    assert '<th colspan="2" scope="colgroup" class="edge">MLE</th>' in page
    assert page.count("<small>±") == 8

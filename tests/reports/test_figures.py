import io

import numpy as np
import pytest

from lmirl_jax.evaluation.front import Cell
from lmirl_jax.reports import figures
from lmirl_jax.types import UserError


def cells(run="MLE", shift=0.0):
    rng = np.random.default_rng(0)
    made = []
    for temperature, accuracy, distinct in [(0.5, 0.9, 2.0), (1.0, 0.8, 4.0), (1.5, 0.5, 5.0)]:
        values = {
            "accuracy": (accuracy + rng.normal(0, 0.1, 30)).tolist(),
            "distinct_valid": (distinct + shift + rng.normal(0, 1, 30)).tolist(),
            "self_bleu": (90 - 10 * distinct + rng.normal(0, 1, 30)).tolist(),
        }
        made.append(Cell(run, 0, temperature, {}, values))
    return made


def svg(figure):
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg")
    return buffer.getvalue()


def test_front_has_a_panel_a_measure_and_a_label_a_point():
    figure = figures.front_figure(cells() + cells("IQLearn", 0.5))
    left, right = figure.axes
    assert left.get_xlabel() == "valid distinct answers per prompt" and left.get_ylabel() == "accuracy"
    assert not left.xaxis_inverted() and right.xaxis_inverted()  # To the right is more diverse in both.
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["0.5", "1.0", "1.5"] * 2
        assert [text.get_text() for text in axis.get_legend().get_texts()] == [
            "MLE",
            "IQLearn",
            "Pareto hull",
        ]


def test_labels_of_points_do_not_overlap_each_other():
    figure = figures.front_figure(cells() + cells("IQLearn", 0.05), diversity=["distinct_valid"])
    [axis] = figure.axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])


def test_front_of_cells_without_intervals():
    bare = [Cell("MLE", 0, t, {"accuracy": a, "distinct_valid": 1.0}) for t, a in [(0.5, 0.9), (1.0, 0.5)]]
    figure = figures.front_figure(bare, diversity=["distinct_valid"])
    assert len(figure.axes[0].lines) == 1  # The curve, and no bars.
    with pytest.raises(
        UserError, match="run 'MLE' has no metric 'self_bleu'; it has accuracy, distinct_valid"
    ):
        figures.front_figure(bare)


def test_names_of_runs_are_not_formulas():
    text = svg(figures.front_figure(cells("$x_1$ <script>"), diversity=["distinct_valid"]))
    assert "$x_1$ &lt;script&gt;" in text


def test_many_runs_with_long_names_leave_room_for_the_curves():
    runs = [f"IQLearn with lambda {i} and a name that is far too long for any legend" for i in range(5)]
    figure = figures.front_figure([cell for run in runs for cell in cells(run)], diversity=["self_bleu"])
    svg(figure)
    assert figure.axes[0].get_window_extent().width > 0.7 * figure.bbox.width
    assert figure.axes[0].get_window_extent().height > 0.5 * figure.bbox.height


def test_loss_figure_declares_its_smoothing():
    losses = {"MLE": (list(range(400)), [1.0 + 1 / (i + 1) for i in range(400)])}
    text = svg(figures.loss_figure(losses))
    assert "thin: logged values; thick: exponential moving average over 10" in text
    assert "log scale" not in text
    assert "every logged value, not smoothed" in svg(figures.loss_figure({"a": ([0, 1], [2.0, 1.0])}))


def test_loss_figure_of_losses_that_fall_far_is_logarithmic():
    figure = figures.loss_figure({"a": ([0, 1, 2], [5.0, 1.0, 0.2])})
    assert figure.axes[0].get_yscale() == "log" and figure.axes[0].get_ylabel().endswith("log scale")
    assert figures.loss_figure({"a": ([0, 1], [5.0, -0.2])}).axes[0].get_yscale() == "linear"


def test_loss_figure_of_a_long_run_stays_small():
    text = svg(figures.loss_figure({"a": (list(range(100_000)), [1.0 + i % 7 for i in range(100_000)])}))
    assert len(text) < 400_000


def test_loss_figure_errors():
    with pytest.raises(UserError, match="no curves"):
        figures.loss_figure({})
    with pytest.raises(UserError, match="'a' has 2 steps and 1 losses"):
        figures.loss_figure({"a": ([0, 1], [1.0])})
    with pytest.raises(UserError, match="'a' has 0 steps"):
        figures.loss_figure({"a": ([], [])})


def test_smoothed_by_hand():
    # Decay 1/3: weights of the last, the one before, .. are 1, 1/3, 1/9, over their sum.
    np.testing.assert_allclose(
        figures.exponential_average(np.array([1.0, 2.0, 4.0]), 2),
        [1.0, 7 / 4, (4 + 2 / 3 + 1 / 9) / (13 / 9)],
    )
    np.testing.assert_allclose(figures.exponential_average(np.array([1.0, 2.0, 4.0]), 1), [1.0, 2.0, 4.0])


@pytest.mark.e2e
def test_drawing_chooses_no_window_system():
    import subprocess
    import sys

    code = (
        "import sys, lmirl_jax.reports as r; assert 'matplotlib' not in sys.modules; "
        "r.loss_figure({'a': ([0], [1.0])}); assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

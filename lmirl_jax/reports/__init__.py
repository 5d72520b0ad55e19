"""Self-contained HTML pages: of a quickstart, of a sweep, and of rewards."""

from lmirl_jax.reports.comparison_sections import PromptAnswers, add_answers, add_fronts, add_sweep_table
from lmirl_jax.reports.figures import front_figure, loss_figure
from lmirl_jax.reports.heatmap import Row, heat_map
from lmirl_jax.reports.page_text import PageText
from lmirl_jax.reports.quickstart_page import HeatMap, quickstart_report
from lmirl_jax.reports.report import Report
from lmirl_jax.reports.scored_rows import scored_row
from lmirl_jax.reports.sweep_page import sweep_report
from lmirl_jax.reports.trust_page import trust_report

__all__ = [
    "HeatMap",
    "PageText",
    "PromptAnswers",
    "Report",
    "Row",
    "add_answers",
    "add_fronts",
    "add_sweep_table",
    "front_figure",
    "heat_map",
    "loss_figure",
    "quickstart_report",
    "scored_row",
    "sweep_report",
    "trust_report",
]

"""Token rewards: what they are worth, and the pages that show them."""

from lmirl_jax.rewards.figures import front_figure, loss_figure
from lmirl_jax.rewards.heatmap import Row, heat_map, merge_bytes
from lmirl_jax.rewards.quickstart_page import HeatMap, add_sweep_table, quickstart_report
from lmirl_jax.rewards.report import Report

__all__ = [
    "HeatMap",
    "Report",
    "Row",
    "add_sweep_table",
    "front_figure",
    "heat_map",
    "loss_figure",
    "merge_bytes",
    "quickstart_report",
]

"""Token rewards: what they are worth, and the pages that show them."""

from lmirl_jax.rewards.comparison_sections import Shown, add_answers, add_fronts, add_sweep_table
from lmirl_jax.rewards.corruption_effects import CorruptionEffect, effects_of_corruptions
from lmirl_jax.rewards.corruptions import (
    CORRUPTIONS,
    Corruption,
    corrupt,
    dropped_step,
    repeated_step,
    shuffled_steps,
    truncation,
    wrong_digit,
)
from lmirl_jax.rewards.figures import front_figure, loss_figure
from lmirl_jax.rewards.filtering import FilterConfig, Filtered, filter_scored
from lmirl_jax.rewards.heatmap import Row, heat_map
from lmirl_jax.rewards.quickstart_page import HeatMap, quickstart_report
from lmirl_jax.rewards.report import Report
from lmirl_jax.rewards.reranking import Reranker
from lmirl_jax.rewards.score_arrays import Scores, as_arrays, score
from lmirl_jax.rewards.scored import Scored
from lmirl_jax.rewards.scored_file import read_scored
from lmirl_jax.rewards.scored_rows import scored_row
from lmirl_jax.rewards.scoring import RewardModel, Scorer
from lmirl_jax.rewards.sweep_page import sweep_report
from lmirl_jax.rewards.trust_findings import correlation_rows, trust_findings
from lmirl_jax.rewards.trust_page import trust_report

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "CorruptionEffect",
    "FilterConfig",
    "Filtered",
    "HeatMap",
    "Report",
    "Reranker",
    "RewardModel",
    "Row",
    "Scored",
    "Scorer",
    "Scores",
    "Shown",
    "add_answers",
    "add_fronts",
    "add_sweep_table",
    "as_arrays",
    "correlation_rows",
    "corrupt",
    "dropped_step",
    "effects_of_corruptions",
    "filter_scored",
    "front_figure",
    "heat_map",
    "loss_figure",
    "quickstart_report",
    "read_scored",
    "repeated_step",
    "score",
    "scored_row",
    "shuffled_steps",
    "sweep_report",
    "truncation",
    "trust_findings",
    "trust_report",
    "wrong_digit",
]

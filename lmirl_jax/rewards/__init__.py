"""Token rewards: scoring, corruption tests, reranking and filtering."""

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
from lmirl_jax.rewards.filtering import FilterConfig, FilterResult, filter_scored
from lmirl_jax.rewards.reranking import Reranker
from lmirl_jax.rewards.reward_function import reward_function
from lmirl_jax.rewards.rollout_scores import RolloutScores
from lmirl_jax.rewards.score_arrays import Scores, answer_returns, as_arrays, score
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.rewards.scored_file import read_scored
from lmirl_jax.rewards.scoring import RewardModel, Scorer
from lmirl_jax.rewards.step_findings import StepFinding, step_findings
from lmirl_jax.rewards.step_scores import scored_answer_sets, step_scores
from lmirl_jax.rewards.trust_findings import correlation_rows, trust_findings

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "CorruptionEffect",
    "FilterConfig",
    "FilterResult",
    "Reranker",
    "RewardModel",
    "RolloutScores",
    "ScoredAnswer",
    "Scorer",
    "Scores",
    "StepFinding",
    "answer_returns",
    "as_arrays",
    "correlation_rows",
    "corrupt",
    "dropped_step",
    "effects_of_corruptions",
    "filter_scored",
    "read_scored",
    "repeated_step",
    "reward_function",
    "score",
    "scored_answer_sets",
    "shuffled_steps",
    "step_findings",
    "step_scores",
    "truncation",
    "trust_findings",
    "wrong_digit",
]

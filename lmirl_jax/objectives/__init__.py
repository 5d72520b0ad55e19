"""Objectives: pure per-token functions of `SoftQ`, unreduced. The caller weights and reduces."""

from lmirl_jax.objectives.inverse_q import implied_rewards, iqlearn, iqlearn_terms
from lmirl_jax.objectives.likelihood import mle

__all__ = ["implied_rewards", "iqlearn", "iqlearn_terms", "mle"]

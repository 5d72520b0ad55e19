"""Objectives: pure per-token functions of `SoftQ`, unreduced. The caller weights and reduces."""

from lmirl_jax.objectives.divergences import (
    chi_squared,
    forward_kl,
    hellinger,
    jensen_shannon,
    reverse_kl,
    total_variation,
)
from lmirl_jax.objectives.entropy import entropy_regularised_mle, gem
from lmirl_jax.objectives.inverse_q import OnlineWeights, implied_rewards, iqlearn, online_weights
from lmirl_jax.objectives.likelihood import mle
from lmirl_jax.objectives.reweighted import dft, focal

__all__ = [
    "OnlineWeights",
    "chi_squared",
    "dft",
    "entropy_regularised_mle",
    "focal",
    "forward_kl",
    "gem",
    "hellinger",
    "implied_rewards",
    "iqlearn",
    "jensen_shannon",
    "mle",
    "online_weights",
    "reverse_kl",
    "total_variation",
]

"""Objectives: pure functions that return one loss for each token. The caller weights and reduces.

Objectives on demonstrations take `SoftQ`; those on rollouts take log-probabilities, advantages and scores.
"""

from lmirl_jax.objectives.advantages import gae, group_relative, leave_one_out, whiten
from lmirl_jax.objectives.adversarial import (
    discriminator_loss,
    log_sigmoid_reward,
    logit_reward,
    relativistic_loss,
    softplus_reward,
)
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
from lmirl_jax.objectives.offline_q import advantage_weighted, conservative_q, expectile
from lmirl_jax.objectives.policy_gradient import (
    clip_share,
    clipped_policy_gradient,
    kl_estimate,
    kl_to_reference,
    value_loss,
)
from lmirl_jax.objectives.preferences import dpo, hinge, ipo
from lmirl_jax.objectives.reward_extraction import Shaping, extracted_rewards, shaped_rewards
from lmirl_jax.objectives.reweighted import dft, focal

__all__ = [
    "OnlineWeights",
    "Shaping",
    "advantage_weighted",
    "chi_squared",
    "clip_share",
    "clipped_policy_gradient",
    "conservative_q",
    "dft",
    "discriminator_loss",
    "dpo",
    "entropy_regularised_mle",
    "expectile",
    "extracted_rewards",
    "focal",
    "forward_kl",
    "gae",
    "gem",
    "group_relative",
    "hellinger",
    "hinge",
    "implied_rewards",
    "ipo",
    "iqlearn",
    "jensen_shannon",
    "kl_estimate",
    "kl_to_reference",
    "leave_one_out",
    "log_sigmoid_reward",
    "logit_reward",
    "mle",
    "online_weights",
    "relativistic_loss",
    "reverse_kl",
    "shaped_rewards",
    "softplus_reward",
    "total_variation",
    "value_loss",
    "whiten",
]

"""Online learning from rollouts of the policy: the learners, the sampler and the replay buffer between them."""

from lmirl_jax.online.adversary import Adversary, PairwiseAdversary
from lmirl_jax.online.experience import Experience
from lmirl_jax.online.frozen_reward import FrozenReward
from lmirl_jax.online.iqlearn import OnlineIQLearn, online_step
from lmirl_jax.online.policy_gradient import PolicyGradient
from lmirl_jax.online.policy_gradient_step import policy_gradient_step
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.online.reward_sources import RewardFunction, RewardSource
from lmirl_jax.online.rollouts import Rollouts, Sampler, num_prompts

__all__ = [
    "Adversary",
    "Experience",
    "FrozenReward",
    "Loss",
    "OnlineIQLearn",
    "PairwiseAdversary",
    "PolicyGradient",
    "RewardFunction",
    "RewardSource",
    "Rollouts",
    "Sampler",
    "num_prompts",
    "online_step",
    "policy_gradient_step",
]

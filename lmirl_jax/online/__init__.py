"""Learning from the policy's own answers: the learners, the sampler that feeds them and the buffer between."""

from lmirl_jax.online.experience import Experience
from lmirl_jax.online.iqlearn import OnlineIQLearn, online_step
from lmirl_jax.online.rollouts import Rollouts, Sampler, num_prompts

__all__ = [
    "Experience",
    "OnlineIQLearn",
    "Rollouts",
    "Sampler",
    "num_prompts",
    "online_step",
]

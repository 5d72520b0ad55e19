"""Networks: hidden states in training, a cache in decoding. They know logical axes, never objectives."""

from lmirl_jax.models.critic import Critic, CriticConfig, critic_params, gradient_penalty, offset_gradients
from lmirl_jax.models.t5 import T5, T5Config

__all__ = [
    "T5",
    "Critic",
    "CriticConfig",
    "T5Config",
    "critic_params",
    "gradient_penalty",
    "offset_gradients",
]

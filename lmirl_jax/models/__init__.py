"""Networks: hidden states in training, a cache in decoding. They know logical axes, never objectives."""

from lmirl_jax.models.t5 import T5, T5Config

__all__ = ["T5", "T5Config"]

"""Answers from a model: greedy and temperature sampling over a key-value cache."""

from lmirl_jax.decoding.sampling import Samples, sample, sample_keys

__all__ = ["Samples", "sample", "sample_keys"]

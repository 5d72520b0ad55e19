"""Answers from a model: greedy and temperature sampling over a key-value cache."""

from lmirl_jax.decoding.sampling import EOS, Samples, sample, sample_keys

__all__ = ["EOS", "Samples", "sample", "sample_keys"]

"""Answers from a model over its key-value cache: greedy, sampled at a temperature and filtered."""

from lmirl_jax.decoding.filters import Filters
from lmirl_jax.decoding.sampling import EOS, Samples, log_prob_gaps, real_tokens, sample, sample_keys

__all__ = ["EOS", "Filters", "Samples", "log_prob_gaps", "real_tokens", "sample", "sample_keys"]

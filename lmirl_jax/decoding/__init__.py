"""AnswerBatch from a model over its key-value cache: greedy, sampled at a temperature and filtered, or searched by beams."""

from lmirl_jax.decoding.beams import length_penalty, search
from lmirl_jax.decoding.filters import Filters
from lmirl_jax.decoding.sampling import Samples, log_prob_gaps, logits_of, sample, sample_keys

__all__ = [
    "Filters",
    "Samples",
    "length_penalty",
    "log_prob_gaps",
    "logits_of",
    "sample",
    "sample_keys",
    "search",
]

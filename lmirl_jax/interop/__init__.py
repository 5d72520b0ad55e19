"""Checkpoints of Hugging Face and T5X, in and out: one name table for each family, which is read in both directions."""

from lmirl_jax.interop.identity import identity
from lmirl_jax.interop.pretrained import Pretrained, kind_of, open_pretrained
from lmirl_jax.interop.streaming import check_shapes, load_params

__all__ = ["Pretrained", "check_shapes", "identity", "kind_of", "load_params", "open_pretrained"]

"""Ahead-of-time compilation for TPU topologies that are not at hand, and what compiled programs say of memory and time."""

from lmirl_jax.compilation.abstract_data import AbstractData
from lmirl_jax.compilation.programs import DoesNotFit, compile_sampler, compile_update, count_parameters
from lmirl_jax.compilation.summary import Memory, Summary
from lmirl_jax.compilation.topologies import devices_of, has_compiler, uncached

__all__ = [
    "AbstractData",
    "DoesNotFit",
    "Memory",
    "Summary",
    "compile_sampler",
    "compile_update",
    "count_parameters",
    "devices_of",
    "has_compiler",
    "uncached",
]

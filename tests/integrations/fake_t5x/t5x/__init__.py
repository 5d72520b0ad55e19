"""Stands in for T5X where it is not installed: the names, signatures and conventions that `lmirl_jax.integrations.t5x` uses.

The model's parameters are its logits. tests/integrations/test_t5x.py tests with T5X itself.
"""

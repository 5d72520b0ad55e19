"""Checkpoints of Hugging Face and T5X, in and out: one name table for each family, which is read in both directions."""

from lmirl_jax.interop.families import hf_table, model_type_of, t5x_table
from lmirl_jax.interop.gathered import flatten
from lmirl_jax.interop.identity import identity
from lmirl_jax.interop.name_table import widest
from lmirl_jax.interop.pretrained import Pretrained, config_folder, kind_of, open_pretrained
from lmirl_jax.interop.save_hf import write_config, write_weights
from lmirl_jax.interop.save_peft import adapter_config, write_peft
from lmirl_jax.interop.save_t5x import write_checkpoint as write_t5x
from lmirl_jax.interop.streaming import check_shapes, load_params

__all__ = [
    "Pretrained",
    "adapter_config",
    "check_shapes",
    "config_folder",
    "flatten",
    "hf_table",
    "identity",
    "kind_of",
    "load_params",
    "model_type_of",
    "open_pretrained",
    "t5x_table",
    "widest",
    "write_config",
    "write_peft",
    "write_t5x",
    "write_weights",
]

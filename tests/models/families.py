"""A tiny configuration of each family, and compiled calls of their networks.

Flan-T5, LM-adapted T5 and mT5 have the network of T5 1.1.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from lmirl_jax.models import (
    DecoderOnlyConfig,
    LinearRopeScaling,
    Llama3RopeScaling,
    T5Config,
    T5GemmaConfig,
    T5GemmaStackConfig,
    abstract,
)

T5_1_1 = T5Config(
    vocab_size=64,
    emb_dim=16,
    num_heads=4,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relpos_buckets=8,
    relpos_max_distance=6,
)


def t5(**options: Any) -> T5Config:
    return T5Config(**{**vars(T5_1_1), **options})


def stack(emb_dim: int, num_layers: int, **options: Any) -> T5GemmaStackConfig:
    """A stack with a window that the tests' rows are longer than."""
    sizes = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "mlp_dim": 24, "sliding_window": 3}
    return T5GemmaStackConfig(**{"emb_dim": emb_dim, "num_layers": num_layers, **sizes, **options})


def decoder_only(**options: Any) -> DecoderOnlyConfig:
    sizes = {"vocab_size": 64, "emb_dim": 16, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "mlp_dim": 24}
    return DecoderOnlyConfig(**{"num_layers": 2, "decoder_start_id": 2, **sizes, **options})


GEMMA = {"norm_offset": 1.0, "post_norms": True, "scaled_embeddings": True, "activation": "gelu"}
# Windows that the tests' rows are longer than, in turns with layers without one.
WINDOWS = {"sliding_window": 3, "layer_types": ("sliding_attention", "full_attention")}
DECODER_ONLY = {
    "llama": decoder_only(rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 16), logits_via_embedding=False),
    "qwen2": decoder_only(qkv_biases=True),
    "qwen3": decoder_only(query_key_norms=True),
    "gemma2": decoder_only(**GEMMA, **WINDOWS, attention_soft_cap=5.0, final_soft_cap=30.0),
    "gemma3": decoder_only(
        **GEMMA,
        **WINDOWS,
        query_key_norms=True,
        rope_theta=1e6,
        local_rope_theta=1e4,
        rope_scaling=LinearRopeScaling(8.0),
    ),
    "prefix": decoder_only(bidirectional_prompts=True, **WINDOWS),
}
FAMILIES = {
    "t5_1_0": t5(mlp_activations=("relu",), logits_via_embedding=True),
    "t5_1_1": T5_1_1,
    "byt5": t5(num_encoder_layers=3, num_decoder_layers=1),
    "umt5": t5(relpos_per_layer=True),
    "t5gemma": T5GemmaConfig(vocab_size=64, encoder=stack(24, 3), decoder=stack(16, 2)),
    **DECODER_ONLY,
}


@functools.cache
def initial(config: Any) -> dict[str, Any]:
    """The initial parameters of a network, as a nested dict that is the caller's."""
    return jax.tree.map(lambda x: x, _initial(_plain(config)))


@functools.cache
def _initial(config: Any) -> dict[str, Any]:
    return jax.jit(lambda: nnx.to_pure_dict(nnx.state(config.build(jax.random.key(0)))))()


def _plain(config: Any) -> Any:
    """The recipe of the same parameters that most tests have: how a network computes changes none of them."""
    inner = [name for name in ("base", "trunk") if hasattr(config, name)]
    if inner:
        return dataclasses.replace(config, **{name: _plain(getattr(config, name)) for name in inner})
    return dataclasses.replace(config, dropout_rate=0.0, dtype="float32", remat="none", scan_unroll=1)


def build(config: Any) -> Any:
    """The network with its initial parameters, and biases that are not 0."""
    graph, state = abstract.build(config)
    nnx.replace_by_pure_dict(state, initial(config))
    model = nnx.merge(graph, state)
    if getattr(config, "qkv_biases", False):
        for name in ("query", "key", "value"):
            bias = getattr(model.decoder.layers.self_attention, name).bias
            bias[...] = 0.5 * jax.random.normal(jax.random.key(1), bias.shape)
    return model


def call(model: nnx.Module, function: Callable[..., Any], *args: Any) -> Any:
    """`function(model, *args)`, compiled."""
    graph, state = nnx.split(model)
    return jax.jit(lambda state, args: function(nnx.merge(graph, state), *args))(state, args)

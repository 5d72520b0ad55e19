"""Hugging Face's names of the parameters of decoder-only models, and what their config.json have in common."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.hf_rope import scaling_json
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import DecoderOnlyConfig, Llama3RopeScaling
from lmirl_jax.types import UserError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# What the names of their classes end with.
CLASSES = ("ForCausalLM",)
# The ends of the names of tensors that older checkpoints hold beside the parameters: the frequencies of rotary positions.
UNUSED_ENDS = ("rotary_emb.inv_freq",)
ACTIVATIONS = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
}
# The `max_position_embeddings` that is written where training knew of no end.
LENGTH = 8192
SLIDING, FULL = "sliding_attention", "full_attention"


def read_sizes(
    config: Config, tensors: Mapping[str, TensorInfo], head_dim: int | None = None
) -> dict[str, Any]:
    """The sizes that all families state.

    Args:
        config: the file.
        tensors: the description of each tensor.
        head_dim: the width of a head where the file states none; None: the hidden size divided by the number of heads.
    """
    layers = config.count("num_hidden_layers")
    if layers > len(tensors):
        # No list with an entry for each of them is made.
        raise UserError(
            f"{config.where} has {layers} as num_hidden_layers, and the checkpoint {len(tensors)} tensors: the files do not "
            "belong together; copy the checkpoint again"
        )
    width, heads = config.count("hidden_size"), config.count("num_attention_heads")
    return {
        "vocab_size": config.count("vocab_size"),
        "emb_dim": width,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": config.count("num_key_value_heads", heads),
        "head_dim": config.count("head_dim", head_dim or width // heads),
        "mlp_dim": config.count("intermediate_size"),
        "norm_epsilon": config.number("rms_norm_eps", 1e-6),
    }


def read_start(config: Config, bos: int | None, eos: int | None) -> int:
    """The token that stands for an empty prompt: BOS, else EOS, else 0.

    Args:
        config: the file.
        bos, eos: the tokens where the file says nothing; null in the file means that there is none.
    """
    for name, default in {"bos_token_id": bos, "eos_token_id": eos}.items():
        value = config.get(name, default)
        value = value[0] if isinstance(value, list) and value else value
        if value is not None:
            return Config(config.where, {name: value}).count(name, least=0)
    return 0


def refuse(config: Config, *names: str) -> None:
    """Raises a UserError for the first of these settings that is true."""
    for name in names:
        if config.flag(name, False):
            raise UserError(f"{config.where}: {name} is not supported for model_type {config.model_type!r}")


def base_json(config: DecoderOnlyConfig, model_type: str, architecture: str) -> dict[str, Any]:
    """The settings that all families have in the config.json of a model that comes from no Hugging Face checkpoint."""
    scaling, longest = config.rope_scaling, LENGTH
    if isinstance(scaling, Llama3RopeScaling):
        longest = int(scaling.original_length * max(1, scaling.factor))
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.emb_dim,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_epsilon,
        "max_position_embeddings": longest,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling_json(scaling),
        "tie_word_embeddings": config.logits_via_embedding,
        "attention_dropout": 0.0,
        "bos_token_id": config.decoder_start_id,
    }


def activation_json(config: DecoderOnlyConfig) -> str:
    """Transformers' name of the activation."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == config.activation)


def layer_types(config: DecoderOnlyConfig) -> list[str]:
    """The kind of each layer."""
    if config.sliding_window is None:
        return [FULL] * config.num_layers
    return list(config.layer_types or [SLIDING] * config.num_layers)


def table(config: DecoderOnlyConfig) -> list[Entry]:
    """Our parameters and those of transformers."""
    entries = [
        Entry("token_embedder", "vocab embed", EMBEDDING, "vocab embed"),
        *_attention(config),
        *_norms(config),
        _entry("mlp/wi_0/kernel", "embed mlp", "mlp.gate_proj.weight", "mlp embed"),
        _entry("mlp/wi_1/kernel", "embed mlp", "mlp.up_proj.weight", "mlp embed"),
        _entry("mlp/wo/kernel", "mlp embed", "mlp.down_proj.weight", "embed mlp"),
        Entry("decoder/norm/scale", "embed", "model.norm.weight", "embed"),
    ]
    if not config.logits_via_embedding:
        entries.append(Entry("logits_dense/kernel", "embed vocab", HEAD, "vocab embed"))
    return entries


def _entry(ours: str, axes: str, theirs: str, their_axes: str) -> Entry:
    return Entry(f"decoder/layers/{ours}", f"layers {axes}", f"model.layers.{{layer}}.{theirs}", their_axes)


def _attention(config: DecoderOnlyConfig) -> list[Entry]:
    ours, theirs = "self_attention", "self_attn"
    entries = []
    for name, heads in {"query": "heads", "key": "kv_heads", "value": "kv_heads"}.items():
        place, merged = f"{theirs}.{name[0]}_proj", f"({heads} kv)"
        entries.append(
            _entry(f"{ours}/{name}/kernel", f"embed {heads} kv", f"{place}.weight", f"{merged} embed")
        )
        if config.qkv_biases:
            entries.append(_entry(f"{ours}/{name}/bias", f"{heads} kv", f"{place}.bias", merged))
        if config.query_key_norms and name != "value":
            entries.append(_entry(f"{ours}/{name}_norm/scale", "kv", f"{theirs}.{name[0]}_norm.weight", "kv"))
    out = "heads kv embed", f"{theirs}.o_proj.weight", "embed (heads kv)"
    return [*entries, _entry(f"{ours}/out/kernel", *out)]


def _norms(config: DecoderOnlyConfig) -> list[Entry]:
    """The norms around both blocks; "post_attention" is the one before the feed-forward block where no norm follows a block."""
    names = {"pre_self_attention": "input", "pre_mlp": "post_attention"}
    if config.post_norms:
        names["post_self_attention"] = "post_attention"
        names |= {"pre_mlp": "pre_feedforward", "post_mlp": "post_feedforward"}
    return [
        _entry(f"{ours}_layer_norm/scale", "embed", f"{theirs}_layernorm.weight", "embed")
        for ours, theirs in names.items()
    ]

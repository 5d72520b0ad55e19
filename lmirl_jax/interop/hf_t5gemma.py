"""Hugging Face's names of the parameters of T5Gemma, and its config.json."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import T5GemmaConfig, T5GemmaStackConfig
from lmirl_jax.types import UserError

ENCODER_EMBEDDING = "model.encoder.embed_tokens.weight"
EMBEDDING, HEAD = "model.decoder.embed_tokens.weight", "lm_head.out_proj.weight"
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}


def read_config(config: Config, tensors: Mapping[str, TensorInfo], tied: bool) -> T5GemmaConfig:
    """The sizes and options of a config.json; the arguments are those of `hf_t5.read_config`."""
    encoder, decoder = config.part("encoder"), config.part("decoder")
    start = decoder.count("bos_token_id", 2, least=0)
    return T5GemmaConfig(
        vocab_size=decoder.count("vocab_size"),
        encoder=_read_stack(encoder),
        decoder=_read_stack(decoder),
        final_soft_cap=decoder.optional_number("final_logit_softcapping", 30.0),
        logits_via_embedding=tied,
        decoder_start_id=config.count("decoder_start_token_id", start, least=0),
    )


def _read_stack(config: Config) -> T5GemmaStackConfig:
    heads = config.count("num_attention_heads")
    head_dim = config.count("head_dim", 256)
    config.one_of("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    if config.flag("attention_bias", False):
        raise UserError(f"{config.where}: attention_bias is not supported, and no published T5Gemma has it")
    return T5GemmaStackConfig(
        emb_dim=config.count("hidden_size"),
        num_heads=heads,
        num_kv_heads=config.count("num_key_value_heads", heads),
        head_dim=head_dim,
        mlp_dim=config.count("intermediate_size"),
        num_layers=config.count("num_hidden_layers"),
        sliding_window=config.count("sliding_window", 4096),
        layer_types=config.words("layer_types"),
        query_scale=config.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_soft_cap=config.optional_number("attn_logit_softcapping", 50.0),
        rope_theta=_rope_theta(config),
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
    )


def _rope_theta(config: Config) -> float:
    """Transformers 5 has the base of the rotations among `rope_parameters`, older versions beside the sizes."""
    name = next((name for name in ("rope_parameters", "rope_scaling") if config.get(name)), None)
    parameters = config if name is None else config.part(name)
    kind = "default" if name is None else parameters.get("rope_type", "default")
    if kind != "default":
        raise UserError(
            f"{config.where}: rope_type={kind!r} is not supported for T5Gemma; only the plain one is"
        )
    return parameters.number("rope_theta", config.number("rope_theta", 10000.0))


def config_json(config: T5GemmaConfig, model_type: str) -> dict[str, Any]:
    """The config.json of a T5Gemma that comes from no Hugging Face checkpoint."""
    stacks = {"encoder": config.encoder, "decoder": config.decoder}
    return {
        "architectures": ["T5GemmaForConditionalGeneration"],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "dropout_rate": config.dropout_rate,
        "tie_word_embeddings": config.logits_via_embedding,
        "bos_token_id": config.decoder_start_id,
        "decoder_start_token_id": config.decoder_start_id,
        **{name: _stack_json(stack, config, name == "decoder") for name, stack in stacks.items()},
    }


def _stack_json(stack: T5GemmaStackConfig, config: T5GemmaConfig, is_decoder: bool) -> dict[str, Any]:
    scale = stack.head_dim**-0.5 if stack.query_scale is None else stack.query_scale
    return {
        "model_type": "t5_gemma_module",
        "is_decoder": is_decoder,
        "vocab_size": config.vocab_size,
        "hidden_size": stack.emb_dim,
        "num_attention_heads": stack.num_heads,
        "num_key_value_heads": stack.num_kv_heads,
        "head_dim": stack.head_dim,
        "intermediate_size": stack.mlp_dim,
        "num_hidden_layers": stack.num_layers,
        "sliding_window": stack.sliding_window,
        **({} if stack.layer_types is None else {"layer_types": list(stack.layer_types)}),
        "query_pre_attn_scalar": round(scale**-2, 6),
        "attn_logit_softcapping": stack.attention_soft_cap,
        "final_logit_softcapping": config.final_soft_cap,
        "rope_theta": stack.rope_theta,
        "rms_norm_eps": stack.norm_epsilon,
        "bos_token_id": config.decoder_start_id,
    }


def table(config: T5GemmaConfig) -> list[Entry]:
    """Our parameters and those of transformers."""
    entries = [
        Entry("encoder_token_embedder", "vocab embed", ENCODER_EMBEDDING, "vocab embed"),
        Entry("token_embedder", "vocab embed", EMBEDDING, "vocab embed"),
        *_stack("encoder", {"attention": "self_attn"}),
        *_stack("decoder", {"self_attention": "self_attn", "encoder_decoder_attention": "cross_attn"}),
    ]
    if not config.logits_via_embedding:
        entries.append(Entry("logits_dense/kernel", "embed vocab", HEAD, "vocab embed"))
    return entries


def _stack(stack: str, attentions: Mapping[str, str]) -> list[Entry]:
    """The entries of encoder or decoder."""

    def entry(name: str, axes: str, theirs: str, their_axes: str) -> Entry:
        where = f"model.{stack}.layers.{{layer}}.{theirs}.weight"
        return Entry(f"{stack}/layers/{name}", f"layers {axes}", where, their_axes)

    def norms(name: str, theirs: str) -> list[Entry]:
        return [
            entry(f"{place}_{name}_layer_norm/scale", "embed", f"{place}_{theirs}_layernorm", "embed")
            for place in ("pre", "post")
        ]

    entries = []
    for attention, theirs in attentions.items():
        entries += norms("cross_attention" if "encoder" in attention else attention, theirs)
        # Attention to the encoder reads keys and values of its width.
        heads = {"query": ("heads", "q"), "key": ("kv_heads", "k"), "value": ("kv_heads", "v")}
        for name, (axis, letter) in heads.items():
            axes, their_axes = f"embed {axis} kv", f"({axis} kv) embed"
            entries.append(entry(f"{attention}/{name}/kernel", axes, f"{theirs}.{letter}_proj", their_axes))
        out = "heads kv embed", f"{theirs}.o_proj", "embed (heads kv)"
        entries.append(entry(f"{attention}/out/kernel", *out))
    entries += norms("mlp", "feedforward")
    for name, theirs in {"wi_0": "gate", "wi_1": "up"}.items():
        entries.append(entry(f"mlp/{name}/kernel", "embed mlp", f"mlp.{theirs}_proj", "mlp embed"))
    entries.append(entry("mlp/wo/kernel", "mlp embed", "mlp.down_proj", "embed mlp"))
    return [*entries, Entry(f"{stack}/norm/scale", "embed", f"model.{stack}.norm.weight", "embed")]

"""Hugging Face's names of the parameters of T5, mT5, ByT5 and UMT5, and their config.json."""

from collections.abc import Mapping
from typing import Any

from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import T5Config

# Their names of activations; "gelu" behind "gated-" is the approximation by tanh, as in T5X.
GATED = {
    "gated-gelu": ("gelu", "linear"),
    "gated-gelu_new": ("gelu", "linear"),
    "gated-gelu_pytorch_tanh": ("gelu", "linear"),
    "gated-silu": ("silu", "linear"),
    "gated-relu": ("relu", "linear"),
}
PLAIN = {"relu": ("relu",), "gelu": ("gelu_exact",), "gelu_new": ("gelu",), "silu": ("silu",)}
ACTIVATIONS = GATED | PLAIN
# Tensors that older checkpoints hold beside the parameters: copies of the embedding, and a bias that was never used.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
EMBEDDING, HEAD = "shared.weight", "lm_head.weight"


def read_config(config: Config, tensors: Mapping[str, TensorInfo], tied: bool) -> T5Config:
    """The sizes and options of a config.json.

    Args:
        config: the file.
        tensors: the description of each tensor; a config.json does not say what its embeddings are.
        tied: whether the checkpoint has no output embedding of its own.
    """
    layers = config.count("num_layers")
    # Below these limits the logarithm of the distances has no room.
    buckets = config.count("relative_attention_num_buckets", 32, least=4)
    distance = config.count("relative_attention_max_distance", 128, least=buckets // 2 + 1)
    return T5Config(
        vocab_size=config.count("vocab_size"),
        emb_dim=config.count("d_model"),
        num_heads=config.count("num_heads"),
        head_dim=config.count("d_kv"),
        mlp_dim=config.count("d_ff"),
        num_encoder_layers=layers,
        num_decoder_layers=config.count("num_decoder_layers", layers),
        relpos_buckets=buckets,
        relpos_max_distance=distance,
        norm_epsilon=config.number("layer_norm_epsilon", 1e-6),
        mlp_activations=config.one_of("feed_forward_proj", ACTIVATIONS, "relu"),
        decoder_start_id=config.count(
            "decoder_start_token_id", config.count("pad_token_id", 0, least=0), least=0
        ),
        logits_via_embedding=tied,
        scale_logits=_scales_logits(config),
        relpos_per_layer=config.model_type == "umt5",
    )


def _scales_logits(config: Config) -> bool:
    """Whether logits are multiplied by 1/sqrt(d_model), as in the T5 of the first paper.

    Transformers decides it by `tie_word_embeddings`, also where it does not tie them. From version 5 on it writes true there
    for every T5, and keeps what it decided as `scale_decoder_outputs`. Its mT5 never scales.
    """
    if config.model_type == "mt5":
        return False
    return config.flag("scale_decoder_outputs", config.flag("tie_word_embeddings", True))


def config_json(config: T5Config, model_type: str) -> dict[str, Any]:
    """The config.json of a T5 that comes from no Hugging Face checkpoint.

    Args:
        config: the sizes.
        model_type: 't5', 'mt5' or 'umt5'.
    """
    names = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}
    projection = next(name for name, value in ACTIVATIONS.items() if value == config.mlp_activations)
    return {
        "architectures": [f"{names[model_type]}ForConditionalGeneration"],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "relative_attention_num_buckets": config.relpos_buckets,
        "relative_attention_max_distance": config.relpos_max_distance,
        "layer_norm_epsilon": config.norm_epsilon,
        "feed_forward_proj": projection,
        "dropout_rate": config.dropout_rate,
        "decoder_start_token_id": config.decoder_start_id,
        "tie_word_embeddings": config.network.logits_scale != 1.0,
        "scale_decoder_outputs": config.network.logits_scale != 1.0,
    }


def table(config: T5Config) -> list[Entry]:
    """Our parameters and those of transformers."""
    entries = [
        Entry("token_embedder", "vocab embed", EMBEDDING, "vocab embed"),
        *_stack(config, "encoder", {"attention": "SelfAttention"}),
        *_stack(
            config,
            "decoder",
            {"self_attention": "SelfAttention", "encoder_decoder_attention": "EncDecAttention"},
        ),
    ]
    if not config.logits_via_embedding:
        entries.append(Entry("logits_dense/kernel", "embed vocab", HEAD, "vocab embed"))
    return entries


def _stack(config: T5Config, stack: str, attentions: Mapping[str, str]) -> list[Entry]:
    """The entries of encoder or decoder; each attention, by our name, is one of transformers' numbered sublayers."""

    def entry(name: str, axes: str, theirs: str, their_axes: str) -> Entry:
        where = f"{stack}.block.{{layer}}.layer.{theirs}.weight"
        return Entry(f"{stack}/layers/{name}", f"layers {axes}", where, their_axes)

    entries = []
    for number, (attention, theirs) in enumerate(attentions.items()):
        norm = "cross_attention" if "encoder" in attention else attention
        entries.append(entry(f"pre_{norm}_layer_norm/scale", "embed", f"{number}.layer_norm", "embed"))
        for name, letter in {"query": "q", "key": "k", "value": "v"}.items():
            place = f"{number}.{theirs}.{letter}"
            entries.append(entry(f"{attention}/{name}/kernel", "embed heads kv", place, "(heads kv) embed"))
        place = f"{number}.{theirs}.o"
        entries.append(entry(f"{attention}/out/kernel", "heads kv embed", place, "embed (heads kv)"))
    last = len(attentions)
    entries.append(entry("pre_mlp_layer_norm/scale", "embed", f"{last}.layer_norm", "embed"))
    for name in ("wi",) if len(config.mlp_activations) == 1 else ("wi_0", "wi_1"):
        place = f"{last}.DenseReluDense.{name}"
        entries.append(entry(f"mlp/{name}/kernel", "embed mlp", place, "mlp embed"))
    entries.append(entry("mlp/wo/kernel", "mlp embed", f"{last}.DenseReluDense.wo", "embed mlp"))
    entries.append(_bias(config, stack))
    return [*entries, Entry(f"{stack}/norm/scale", "embed", f"{stack}.final_layer_norm.weight", "embed")]


def _bias(config: T5Config, stack: str) -> Entry:
    """The bias of relative positions, of each layer or in the first one for all."""
    layer = "{layer}" if config.relpos_per_layer else "0"
    theirs = f"{stack}.block.{layer}.layer.0.SelfAttention.relative_attention_bias.weight"
    axes, name = "heads relpos_buckets", "relpos_bias/rel_embedding"
    if config.relpos_per_layer:
        return Entry(f"{stack}/layers/{name}", f"layers {axes}", theirs, "relpos_buckets heads")
    return Entry(f"{stack}/{name}", axes, theirs, "relpos_buckets heads")

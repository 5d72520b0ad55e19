"""T5X's names of the parameters of T5, and the sizes that their shapes tell."""

from collections.abc import Mapping, Sequence

from lmirl_jax.interop.name_table import Entry, TensorInfo
from lmirl_jax.models import T5Config
from lmirl_jax.types import UserError


def table(config: T5Config, scanned: bool) -> list[Entry]:
    """Our parameters and those of T5X.

    Args:
        config: the sizes.
        scanned: whether T5X's layers are stacked along axis 1 (`scalable_t5`), with heads apart.
    """
    entries = [
        Entry("token_embedder", "vocab embed", "token_embedder/embedding", "vocab embed"),
        *_stack(config, scanned, "encoder", ("attention",)),
        *_stack(config, scanned, "decoder", ("self_attention", "encoder_decoder_attention")),
    ]
    if not config.logits_via_embedding:
        entries.append(
            Entry("logits_dense/kernel", "embed vocab", "decoder/logits_dense/kernel", "embed vocab")
        )
    return entries


def _stack(config: T5Config, scanned: bool, stack: str, attentions: Sequence[str]) -> list[Entry]:
    heads = "embed layers heads kv" if scanned else "embed (heads kv)"
    out = "heads layers kv embed" if scanned else "(heads kv) embed"
    widen, narrow = ("embed layers mlp", "mlp layers embed") if scanned else ("embed mlp", "mlp embed")
    layer = f"{stack}/{stack}" if scanned else f"{stack}/layers_{{layer}}"

    def entry(name: str, axes: str, their_axes: str) -> Entry:
        return Entry(f"{stack}/layers/{name}", f"layers {axes}", f"{layer}/{name}", their_axes)

    norms = [f"pre_{name}_layer_norm/scale" for name in (*_norms(attentions), "mlp")]
    entries = [entry(name, "embed", "embed layers" if scanned else "embed") for name in norms]
    for attention in attentions:
        entries += [
            entry(f"{attention}/{name}/kernel", "embed heads kv", heads) for name in ("query", "key", "value")
        ]
        entries.append(entry(f"{attention}/out/kernel", "heads kv embed", out))
    widening = ("wi",) if len(config.mlp_activations) == 1 else ("wi_0", "wi_1")
    entries += [entry(f"mlp/{name}/kernel", "embed mlp", widen) for name in widening]
    entries.append(entry("mlp/wo/kernel", "mlp embed", narrow))
    bias = "relpos_bias/rel_embedding"
    if config.relpos_per_layer:
        theirs = "heads layers relpos_buckets" if scanned else "heads relpos_buckets"
        entries.append(entry(bias, "heads relpos_buckets", theirs))
    else:
        axes = "heads relpos_buckets"
        entries.append(Entry(f"{stack}/{bias}", axes, f"{stack}/{bias}", axes))
    return [*entries, Entry(f"{stack}/norm/scale", "embed", f"{stack}/{stack}_norm/scale", "embed")]


def _norms(attentions: Sequence[str]) -> list[str]:
    """T5X names the norm before attention to the encoder `pre_cross_attention_layer_norm`."""
    return ["cross_attention" if "encoder" in name else name for name in attentions]


def is_scanned(tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether T5X's layers are stacked."""
    return any(name.startswith("encoder/encoder/") for name in tensors)


def config_of(tensors: Mapping[str, TensorInfo], where: str) -> T5Config:
    """Reads the sizes of a T5 from the shapes of T5X's parameters; T5X stores them nowhere else.

    Args:
        tensors: the description of each parameter by its path.
        where: the path of the checkpoint.

    Raises:
        UserError: the parameters are not those of an encoder-decoder of T5X.
    """
    scanned = is_scanned(tensors)
    try:
        vocab_size, emb_dim = tensors["token_embedder/embedding"].shape
        first = "{0}/{0}" if scanned else "{0}/layers_0"
        bias = "encoder/relpos_bias/rel_embedding"
        per_layer = bias not in tensors
        if per_layer:
            bias = f"{first.format('encoder')}/relpos_bias/rel_embedding"
        heads, buckets = tensors[bias].shape[0], tensors[bias].shape[-1]
        query = tensors[f"{first.format('encoder')}/attention/query/kernel"].shape
        gated = f"{first.format('encoder')}/mlp/wi_0/kernel" in tensors
        widening = tensors[f"{first.format('encoder')}/mlp/{'wi_0' if gated else 'wi'}/kernel"].shape
        layers = {stack: _count_layers(tensors, stack, scanned) for stack in ("encoder", "decoder")}
        return T5Config(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            num_heads=heads,
            head_dim=query[-1] if scanned else query[-1] // heads,
            mlp_dim=widening[-1],
            num_encoder_layers=layers["encoder"],
            num_decoder_layers=layers["decoder"],
            relpos_buckets=buckets,
            mlp_activations=("gelu", "linear") if gated else ("relu",),
            logits_via_embedding="decoder/logits_dense/kernel" not in tensors,
            relpos_per_layer=per_layer,
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (KeyError, ValueError, IndexError, ArithmeticError) as error:
        raise UserError(
            f"{where} is no encoder-decoder of T5X ({type(error).__name__}: {error}): only T5 1.0, T5 1.1, mT5, ByT5 and "
            "UMT5 can be read"
        ) from None


def _count_layers(tensors: Mapping[str, TensorInfo], stack: str, scanned: bool) -> int:
    if scanned:
        return tensors[f"{stack}/{stack}/pre_mlp_layer_norm/scale"].shape[1]
    parts = [name.split("/")[1] for name in tensors if name.startswith(f"{stack}/layers_")]
    return 1 + max(int(part.removeprefix("layers_")) for part in parts)

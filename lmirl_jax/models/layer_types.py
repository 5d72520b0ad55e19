"""Which layers of a stack have a sliding window."""

from typing import Annotated

from lmirl_jax.argument_rules import Words
from lmirl_jax.types import UserError

LAYER_TYPES = ("sliding_attention", "full_attention")

LayerTypes = Annotated[
    tuple[str, ...],
    Words(
        "a list of 'sliding_attention' or 'full_attention' for each layer",
        lambda types: len(types) > 0 and all(kind in LAYER_TYPES for kind in types),
    ),
]


def check_stack(
    name: str,
    *,
    layer_types: tuple[str, ...] | None,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
) -> None:
    """Raises a UserError for sizes of a stack with rotary positions that do not fit each other."""
    if layer_types is not None and len(layer_types) != num_layers:
        raise UserError(
            f"{name}.layer_types has {len(layer_types)} entries for num_layers={num_layers}: give one for each layer, or None"
        )
    if num_heads % num_kv_heads:
        raise UserError(f"{name}.num_kv_heads={num_kv_heads} must be a divisor of num_heads={num_heads}")
    if head_dim % 2:
        raise UserError(
            f"{name}.head_dim={head_dim} must be even, because rotary positions turn pairs of dimensions"
        )


def windows_of(types: tuple[str, ...], window: int | None) -> tuple[int | None, ...]:
    """The window of each layer; None in a layer of full attention."""
    return tuple(window if kind == "sliding_attention" else None for kind in types)

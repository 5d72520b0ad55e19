"""Splits parameters into those that are learnt and those that stay: with adapters, a base model has no gradients.

The only place that decides it. Without adapters everything is learnt, and nothing is split.
"""

from collections.abc import Callable, Mapping
from typing import Any

# The name of the module that a linear map with an adapter has; its parameters are `lora_a` and `lora_b`.
ADAPTER = "adapter"
# Scalar heads on a trunk with adapters are learnt as well.
HEADS = "heads"


def has_adapters(params: Any) -> bool:
    """Whether any part of nested dicts is an adapter's."""
    if not isinstance(params, Mapping):
        return False
    return ADAPTER in params or any(has_adapters(part) for part in params.values())


def split(params: Any) -> tuple[Any, Any]:
    """Splits parameters, or a tree of the same form.

    Args:
        params: nested dicts, as `nnx.to_pure_dict` gives them; or their shapes, or their shardings.

    Returns:
        The trainable part and the frozen one, nested dicts without empty ones; `join` is the inverse. Without adapters the
        first is `params` itself, and the second is empty.
    """
    if not has_adapters(params):
        return params, {}
    heads = {HEADS: params[HEADS]} if HEADS in params else {}
    rest = {name: part for name, part in params.items() if name != HEADS}
    return {**_keep(rest, _is_adapter), **heads}, _keep(rest, lambda name: not _is_adapter(name))


def trainable(params: Any) -> Any:
    """The part that is learnt; see `split`."""
    return split(params)[0]


def frozen(params: Any) -> Any:
    """The part that stays: the parameters of a base model without its adapters; see `split`."""
    return split(params)[1]


def join(one: Any, other: Any) -> Any:
    """The union of two trees of nested dicts without a common leaf."""
    if not other:
        return one
    both = {**one, **other}
    return {
        name: join(one[name], other[name]) if name in one and name in other else both[name]
        for name in sorted(both)
    }


def complement(params: Any, part: Any) -> dict[str, Any]:
    """The leaves of nested dicts to which those of a part have no counterpart: `join` of it and the part is the whole."""
    kept: dict[str, Any] = {}
    for name, value in params.items():
        if name not in part:
            kept[name] = value
        elif isinstance(value, Mapping):
            inner = complement(value, part[name])
            kept |= {name: inner} if inner else {}
    return kept


def _is_adapter(name: str) -> bool:
    return name == ADAPTER


def _keep(tree: Mapping[str, Any], wanted: Callable[[str], bool], inside: bool = False) -> dict[str, Any]:
    """The leaves below the names that are wanted, or, for the complement, below none that is not."""
    kept: dict[str, Any] = {}
    for name, part in tree.items():
        adapter = inside or _is_adapter(name)
        if isinstance(part, Mapping):
            inner = _keep(part, wanted, adapter)
            if inner:
                kept[name] = inner
        elif wanted(ADAPTER if adapter else ""):
            kept[name] = part
    return kept

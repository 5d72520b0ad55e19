"""Compares the shapes that a checkpoint holds with those of the run that loads it."""

import re
from collections.abc import Sequence
from typing import Any

import jax

from lmirl_jax.models.trainable import HEADS
from lmirl_jax.types import UserError


def check_shapes(
    metadata: Any, params: Any, where: str, *, resumed: bool = False, new: Sequence[str] = ()
) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than those of the model.

    A model without heads may be loaded from a checkpoint with some, which are then not read.

    Args:
        metadata: the metadata of the checkpoint's state, as Orbax reads it.
        params: the parameters of the model, or their shapes.
        where: the path of the checkpoint.
        resumed: whether the checkpoint belongs to the run itself, so that the error also suggests a new MODEL_DIR.
        new: regular expressions; parameters whose path one of them matches as a whole are not compared.
    """
    saved, expected = _shapes(metadata["params"]), _shapes(params)
    has_heads = any(name.split("/")[0] == HEADS for name in expected)
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) == expected.get(name) or any(re.fullmatch(pattern, name) for pattern in new):
            continue
        if not (resumed or has_heads) and name.split("/")[0] == HEADS:
            continue
        hint = "MODEL"
        if "adapter" in name.split("/"):
            hint = "LORA_RANK and LORA_MATRICES (gin/adapters/lora.gin)"
        elif name.split("/")[0] == HEADS:
            hint = "NETWORK (gin/runs/ilql.gin, gin/runs/reward_model.gin)"
        elif "embed" in name or "logits" in name:
            hint = "MODEL and the vocabulary (VOCABULARY_PATH)"
        other = ", or use a new MODEL_DIR" if resumed else ""
        if name not in saved and not resumed:
            other = f", or set NEW_PARAMETERS=[{name!r}] to begin it at random"
        raise UserError(
            f"checkpoint {where} is of another model: {name} is {_shape(saved.get(name))} there and "
            f"{_shape(expected.get(name))} here; set {hint} as it was trained{other}"
        )


def check_extra(metadata: Any, extra: Any, where: str) -> None:
    """Raises a UserError where the state that a learner saved beside the policy does not fit the learner of this run."""
    saved, expected = _shapes(metadata.get("extra")), _shapes(extra)
    if saved == expected:
        return
    name = min(name for name in saved.keys() | expected.keys() if saved.get(name) != expected.get(name))
    raise UserError(
        f"checkpoint {where} was made by another learner: {name} is {_shape(saved.get(name))} there and "
        f"{_shape(expected.get(name))} here; use the LEARNER and the settings of its samples that it was made with, or a new "
        "MODEL_DIR with INITIAL_CHECKPOINT_PATH to start from its parameters alone"
    )


def add_shardings(shapes: Any, shardings: Any) -> Any:
    """Adds its sharding to each `jax.ShapeDtypeStruct` of a tree, so that Orbax restores each array with it."""
    return jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place), shapes, shardings
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(_part(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _part(key: Any) -> str:
    """The name of a dictionary key, a dataclass field or a tuple index; checkpoints store all of them as strings."""
    return str(next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"

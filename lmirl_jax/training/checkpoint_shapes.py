"""Whether a checkpoint's parameters are those of the model."""

from typing import Any

import jax

from lmirl_jax.types import UserError


def check_shapes(metadata: Any, params: Any, where: str) -> None:
    """Raises a UserError where the checkpoint's parameters are not those of the model."""
    saved = {
        jax.tree_util.keystr(k): tuple(v.shape)
        for k, v in jax.tree_util.tree_leaves_with_path(metadata["params"])
    }
    asked = {jax.tree_util.keystr(k): tuple(v.shape) for k, v in jax.tree_util.tree_leaves_with_path(params)}
    for name in sorted(saved.keys() | asked.keys()):
        if saved.get(name) == asked.get(name):
            continue
        readable = name.strip("[]'").replace("']['", "/")
        hint = (
            "MODEL and the vocabulary (VOCABULARY_PATH)" if "embed" in name or "logits" in name else "MODEL"
        )
        raise UserError(
            f"checkpoint {where} is of another model: {readable} is {_shape(saved.get(name))} there and "
            f"{_shape(asked.get(name))} here; set {hint} as it was trained, or use a new MODEL_DIR"
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"

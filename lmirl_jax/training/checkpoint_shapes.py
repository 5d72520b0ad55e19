"""Whether what a checkpoint holds is what the run has."""

from typing import Any

import jax

from lmirl_jax.types import UserError


def check_shapes(metadata: Any, params: Any, where: str, *, resumed: bool = False) -> None:
    """Raises a UserError where the checkpoint's parameters are not those of the model; `resumed` where it is the run's own."""
    saved, asked = _shapes(metadata["params"]), _shapes(params)
    for name in sorted(saved.keys() | asked.keys()):
        if saved.get(name) == asked.get(name):
            continue
        hint = (
            "MODEL and the vocabulary (VOCABULARY_PATH)" if "embed" in name or "logits" in name else "MODEL"
        )
        raise UserError(
            f"checkpoint {where} is of another model: {name} is {_shape(saved.get(name))} there and "
            f"{_shape(asked.get(name))} here; set {hint} as it was trained{', or use a new MODEL_DIR' if resumed else ''}"
        )


def check_extra(metadata: Any, extra: Any, where: str) -> None:
    """Raises a UserError where what the checkpoint holds beside the policy is not what this run's learner keeps."""
    saved, asked = _shapes(metadata.get("extra")), _shapes(extra)
    if saved == asked:
        return
    name = min(name for name in saved.keys() | asked.keys() if saved.get(name) != asked.get(name))
    raise UserError(
        f"checkpoint {where} was made by another learner: {name} is {_shape(saved.get(name))} there and "
        f"{_shape(asked.get(name))} here; use the LEARNER and the settings of its samples that it was made with, or a new "
        "MODEL_DIR with INITIAL_CHECKPOINT_PATH to start from its parameters alone"
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(_part(key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _part(key: Any) -> str:
    """A checkpoint names by strings what is a dataclass's field, or a place in a tuple, in the run."""
    return str(next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name)))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"

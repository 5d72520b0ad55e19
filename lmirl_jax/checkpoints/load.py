"""Loads the parameters of a checkpoint; it may have been saved with any optimizer and mesh, and by another library."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import interop
from lmirl_jax.checkpoints.folders import kind_of
from lmirl_jax.checkpoints.shapes import add_shardings, check_shapes


def check_params(path: epath.Path, shapes: Any) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than these; reads no array."""
    if kind_of(path) != "lmirl":
        interop.check_shapes(interop.open_pretrained(path), shapes)
        return
    with ocp.PyTreeCheckpointer() as checkpointer:
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))


def load_params(path: epath.Path, shapes: Any, shardings: Any) -> Any:
    """Loads the parameters of a checkpoint and nothing else.

    Args:
        path: the folder of the checkpoint, as `find_checkpoint` returns it.
        shapes: the `jax.ShapeDtypeStruct` of each parameter.
        shardings: the sharding of each parameter.

    Returns:
        The parameters.

    Raises:
        UserError: the checkpoint is of another model.
    """
    if kind_of(path) != "lmirl":
        return interop.load_params(interop.open_pretrained(path), shapes, shardings)
    targets = add_shardings(shapes, shardings)
    with ocp.PyTreeCheckpointer() as checkpointer:
        # The checkpointer's own method would warn that an item has no metadata of a whole checkpoint.
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))
        args = ocp.args.PyTreeRestore(
            item={"params": targets},
            restore_args=ocp.checkpoint_utils.construct_restore_args({"params": targets}),
            partial_restore=True,
        )
        return checkpointer.restore(path / "state", args=args)["params"]

"""Loads the parameters of a checkpoint; it may have been saved with any optimizer and mesh."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax.checkpoints.shapes import add_shardings, check_shapes


def check_params(path: epath.Path, shapes: Any) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than these; reads no array."""
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

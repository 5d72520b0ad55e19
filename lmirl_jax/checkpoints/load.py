"""Loads the parameters of a checkpoint, whatever optimizer and mesh it was saved with."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax.checkpoints.shapes import check_shapes, placed_shapes


def check_params(path: epath.Path, shapes: Any) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than these; reads no array."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))


def load_params(path: epath.Path, shapes: Any, shardings: Any) -> Any:
    """Loads the parameters of a checkpoint and nothing else.

    Args:
        path: of one checkpoint, as `find_checkpoint` gives it.
        shapes: the `jax.ShapeDtypeStruct` of each parameter.
        shardings: where each parameter goes.

    Returns:
        The parameters.

    Raises:
        UserError: the checkpoint is of another model.
    """
    targets = placed_shapes(shapes, shardings)
    with ocp.PyTreeCheckpointer() as checkpointer:
        # The checkpointer's own method would warn that an item has no metadata of a whole checkpoint.
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))
        args = ocp.args.PyTreeRestore(
            item={"params": targets},
            restore_args=ocp.checkpoint_utils.construct_restore_args({"params": targets}),
            partial_restore=True,
        )
        return checkpointer.restore(path / "state", args=args)["params"]

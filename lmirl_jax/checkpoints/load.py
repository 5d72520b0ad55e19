"""Loads the parameters of a checkpoint; it may have been saved with any optimizer and mesh, and by another library."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import interop
from lmirl_jax.checkpoints.adapters import adapter_targets, base_of, check_adapters, read_record
from lmirl_jax.checkpoints.folders import kind_of
from lmirl_jax.checkpoints.manifest import check
from lmirl_jax.checkpoints.shapes import add_shardings, check_shapes
from lmirl_jax.models import merge_adapters
from lmirl_jax.models.trainable import join


def check_params(path: epath.Path, shapes: Any, new: Sequence[str] = ()) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than these; reads no array.

    A checkpoint of adapters stands for the model that they make of their base. Parameters whose path one of the regular
    expressions `new` matches as a whole are not compared.
    """
    if kind_of(path) != "lmirl":
        interop.check_shapes(interop.open_pretrained(path), shapes, new)
        return
    check(path, quick=True)
    record = read_record(path)
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.handler.metadata(path / "state")
    if record is None:
        check_shapes(metadata, shapes, str(path), new=new)
    else:
        check_params(base_of(record, path), shapes, new)
        check_adapters(metadata, shapes, path)


def load_params(path: epath.Path, shapes: Any, shardings: Any, new: Sequence[str] = ()) -> Any:
    """Loads the parameters of a checkpoint and nothing else, after the files are compared with their content hashes.

    Those of a checkpoint of adapters are their base's, with the adapters merged into them.

    Args:
        path: the folder of the checkpoint, as `find_checkpoint` returns it.
        shapes: the `jax.ShapeDtypeStruct` of each parameter.
        shardings: the sharding of each parameter.
        new: regular expressions of the paths of parameters that the checkpoint need not have, and that `shapes` lacks.

    Returns:
        The parameters.

    Raises:
        UserError: the checkpoint is damaged, or of another model, or the base of its adapters is gone.
    """
    if kind_of(path) != "lmirl":
        return interop.load_params(interop.open_pretrained(path), shapes, shardings, new)
    check(path)
    record = read_record(path)
    if record is None:
        return _restore(path, add_shardings(shapes, shardings), shapes, new)
    base = load_params(base_of(record, path), shapes, shardings, new)
    adapters = load_adapters(path, shapes, shardings)
    merge = functools.partial(merge_adapters, scale=record.scale)
    merged = jax.jit(
        lambda base, adapters: merge(join(base, adapters)), out_shardings=shardings, donate_argnums=0
    )
    return merged(base, adapters)


def load_adapters(path: epath.Path, shapes: Any, shardings: Any) -> Any:
    """Loads the adapters of a checkpoint of adapters alone, nested dicts; a copy for every device.

    Args:
        path: the folder of the checkpoint.
        shapes: those of their base's parameters.
        shardings: those of their base's parameters.
    """
    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.handler.metadata(path / "state")
    check_adapters(metadata, shapes, path)
    return _restore(path, adapter_targets(metadata, shardings), None)


def _restore(path: epath.Path, targets: Any, shapes: Any, new: Sequence[str] = ()) -> Any:
    with ocp.PyTreeCheckpointer() as checkpointer:
        if shapes is not None:
            # The checkpointer's own method would warn that an item has no metadata of a whole checkpoint.
            check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path), new=new)
        args = ocp.args.PyTreeRestore(
            item={"params": targets},
            restore_args=ocp.checkpoint_utils.construct_restore_args({"params": targets}),
            partial_restore=True,
        )
        return checkpointer.restore(path / "state", args=args)["params"]

"""Checkpoints that hold adapters alone: what they record about the base model that they belong to, and how both are loaded."""

import dataclasses
from typing import Any, get_args

import jax
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import interop
from lmirl_jax.checkpoints.find import find_checkpoint, pinned
from lmirl_jax.checkpoints.folders import is_finished, kind_of
from lmirl_jax.checkpoints.metadata import identity
from lmirl_jax.interop import hub
from lmirl_jax.models import LoRAConfig
from lmirl_jax.models.adapters import BaseDtype
from lmirl_jax.types import UserError

# The item of a checkpoint that makes it one of adapters.
ITEM = "adapter"


@dataclasses.dataclass(frozen=True)
class AdapterRecord:
    """What a checkpoint of adapters says of its base.

    Args:
        base: the checkpoint of the base: its folder, or its name on the hub with the commit.
        fingerprint: the `identity` of the base, by which another checkpoint at its place is noticed.
        base_dtype: the type of the base's matrices in training.
        rank, alpha: those of the adapters.
    """

    base: str
    fingerprint: str
    base_dtype: BaseDtype
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_record(checkpoint: epath.Path) -> AdapterRecord | None:
    """What a checkpoint says of its base; None where it holds whole models."""
    if not (checkpoint / ITEM).is_dir() or not is_finished(checkpoint):
        return None
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        read = checkpointer.restore(checkpoint / ITEM)
    return AdapterRecord(**{field.name: read[field.name] for field in dataclasses.fields(AdapterRecord)})


def record_of_base(path: str, model: LoRAConfig) -> AdapterRecord:
    """The record of a run of adapters that starts from a checkpoint.

    Args:
        path: the checkpoint, as `find_checkpoint` finds it.
        model: the adapters; without a `base_dtype` it is that of the checkpoint.
    """
    checkpoint = find_checkpoint(path)
    # The newest of a run is another one tomorrow.
    name = pinned(path) if hub.is_name(path) else str(checkpoint)
    dtype = model.base_dtype or _dtype(checkpoint)
    return AdapterRecord(name, identity(checkpoint), dtype, model.rank, model.alpha)


def _dtype(checkpoint: epath.Path) -> BaseDtype:
    """The type that holds every value of a checkpoint."""
    if kind_of(checkpoint) == "lmirl":
        # Where adapters are merged, the sum has more digits than the base.
        return "float32"
    widest = interop.widest(interop.open_pretrained(checkpoint).dtypes)
    found: BaseDtype | None = next((dtype for dtype in get_args(BaseDtype) if dtype == widest), None)
    return found or "float32"


def base_of(record: AdapterRecord, where: Any) -> epath.Path:
    """The checkpoint of the base of adapters.

    Args:
        record: what their checkpoint says.
        where: their checkpoint, for errors.

    Raises:
        UserError: it is gone, or another one lies there.
    """
    remedy = f"the adapters of {where} need the base that they were trained on; put it there again, or a link to it"
    try:
        base = find_checkpoint(record.base)
    except UserError as error:
        raise UserError(f"no base model at {record.base}: {remedy} ({error})") from None
    found = identity(base)
    if found != record.fingerprint:
        raise UserError(
            f"{record.base} is not the base model that it was (fingerprint {found}, not {record.fingerprint}): {remedy}"
        )
    return base


def check_adapters(metadata: Any, shapes: Any, where: Any) -> None:
    """Raises a UserError where adapters do not fit the linear maps of a base.

    Args:
        metadata: the metadata of the checkpoint's state, as Orbax reads it.
        shapes: the parameters of the base, or their shapes.
        where: the checkpoint of the adapters.
    """

    def check(adapters: Any, params: Any, path: str) -> None:
        if ITEM in adapters:
            a, b = adapters[ITEM]["lora_a"].shape, adapters[ITEM]["lora_b"].shape
            kernel = tuple(params["kernel"].shape) if "kernel" in params else ()
            if kernel not in (tuple(a[:-1] + b[1:]), tuple(a[:-1] + b[2:])):
                raise UserError(
                    f"the adapters of {where} do not fit the model: {path} is {kernel} there; set MODEL as they were trained"
                )
            return
        for name, part in adapters.items():
            check(part, params.get(name, {}), f"{path}/{name}".lstrip("/"))

    check(metadata["params"], shapes, "")


def adapter_targets(metadata: Any, shardings: Any) -> Any:
    """The shapes of the adapters of a checkpoint; every device gets a copy of them, since they are small."""
    mesh = jax.tree.leaves(shardings)[0].mesh
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype, sharding=whole),
        metadata["params"],
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )

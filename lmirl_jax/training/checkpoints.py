"""Checkpoints: Orbax's manager over the state and the position in the data; finding and loading one.

A run keeps them in MODEL_DIR/checkpoints/STEP, each with the items `state` (step, params, opt_state) and `data` (JSON).
"""

import dataclasses
import functools
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import files, sharding
from lmirl_jax.training.state import TrainState, build, init_params
from lmirl_jax.types import ModelConfig, UserError


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep.

    Args:
        period: updates between checkpoints; the last step of a run always saves.
        keep: how many of the newest stay.
        keep_period: checkpoints at multiples of it stay for good; None for no others.
        asynchronous: write while training goes on.
    """

    period: int = 1000
    keep: int = 3
    keep_period: int | None = None
    asynchronous: bool = True

    def __post_init__(self):
        for name in ("period", "keep", "keep_period"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UserError(f"CheckpointConfig.{name}={value!r} must be a positive whole number")


def prepare_directory(directory: Any, name: str = "MODEL_DIR") -> epath.Path:
    """Makes a folder, and proves that it can be written to before anything is computed."""
    if not isinstance(directory, str) or not directory:
        raise UserError(f"{name}={directory!r} is no path: name a folder that you may write to")
    path = files.absolute(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable.{jax.process_index()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to {name} {path} ({error.strerror}): choose a folder that you may write to"
        ) from None
    return path


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, model_dir: epath.Path, config: CheckpointConfig):
        self._config = config
        self._manager = ocp.CheckpointManager(
            model_dir / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                max_to_keep=config.keep,
                keep_period=config.keep_period,
                enable_async_checkpointing=config.asynchronous,
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()},
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def is_due(self, step: int) -> bool:
        return step % self._config.period == 0

    def preempted(self, step: int) -> bool:
        """Whether the cluster is about to end this run (agreed between all processes)."""
        return self._manager.reached_preemption(step)

    def save(self, step: int, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves, unless that step is there; returns as soon as the arrays are copied off the devices."""
        if self._manager.latest_step() == step:
            return
        self._check_space(step, state)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(_as_dict(state)), data=ocp.args.JsonSave(data_state)
        )
        self._manager.save(step, args=items, force=True)

    def _check_space(self, step: int, state: TrainState) -> None:
        """A disk that fills up in the midst of a write would leave half a checkpoint, and Orbax to say so at length."""
        if "://" in str(self._manager.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._manager.directory).free
        if free < needed:
            raise UserError(
                f"the checkpoint of step {step} needs {needed / 1e6:,.0f} MB and {self._manager.directory} has "
                f"{free / 1e6:,.0f} MB left: free some, then run the same command again"
            )

    def restore(
        self, step: int, shapes: TrainState, shardings: TrainState
    ) -> tuple[TrainState, dict[str, Any]]:
        """Loads a checkpoint onto the mesh at hand, whatever the mesh it was saved from."""
        where = self._manager.directory / str(step)
        _check_shapes(self._manager.item_metadata(step)["state"], shapes.params, str(where))
        targets = _as_dict(_placed(shapes, shardings))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(targets), data=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=items)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {where} does not fit this run's optimizer ({_first_line(error)}): use the OPTIMIZER it was "
                "made with, or a new MODEL_DIR with INITIAL_CHECKPOINT_PATH to start from its parameters alone"
            ) from error
        return TrainState(**restored["state"]), restored["data"]

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def find_checkpoint(path: str) -> epath.Path:
    """The folder of one checkpoint: given itself, or a run's MODEL_DIR (then its newest)."""
    given = files.absolute(path)
    if (given / "state").is_dir():
        return given
    steps = given / "checkpoints" if (given / "checkpoints").is_dir() else given
    found = [child for child in steps.iterdir() if child.name.isdigit()] if steps.is_dir() else []
    if not found:
        raise UserError(
            f"no checkpoint at {given}: name a run's MODEL_DIR, or one of its checkpoints/STEP folders"
            + ("" if given.exists() else " (the folder does not exist)")
        )
    return max(found, key=lambda child: int(child.name))


def load_params(path: epath.Path, shapes: Any, shardings: Any) -> Any:
    """Loads the parameters of a checkpoint and nothing else, whatever optimizer made it.

    Args:
        path: of one checkpoint, as `find_checkpoint` gives it.
        shapes: the parameters' `jax.ShapeDtypeStruct`.
        shardings: where each goes.

    Returns:
        The parameters.
    """
    targets = _placed(shapes, shardings)
    with ocp.PyTreeCheckpointer() as checkpointer:
        _check_shapes(checkpointer.metadata(path / "state").item_metadata, shapes, str(path))
        args = ocp.args.PyTreeRestore(
            item={"params": targets},
            restore_args=ocp.checkpoint_utils.construct_restore_args({"params": targets}),
            partial_restore=True,
        )
        return checkpointer.restore(path / "state", args=args)["params"]


def load_policy(path: epath.Path, model: ModelConfig, mesh: Mesh) -> tuple[nnx.GraphDef, Any]:
    """The network of a checkpoint without its arrays, and its parameters on the mesh.

    Args:
        path: of one checkpoint, as `find_checkpoint` gives it.
        model: the recipe of the network.
        mesh: the devices, whatever they were in training.

    Returns:
        What `nnx.merge` makes a model of.
    """
    key = jax.random.key(0)
    graph, variables = build(model, key)
    shapes = jax.eval_shape(functools.partial(init_params, model), key)
    return graph, load_params(path, shapes, sharding.parameter_shardings(mesh, variables))


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings
    )


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def _check_shapes(metadata: Any, params: Any, where: str) -> None:
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

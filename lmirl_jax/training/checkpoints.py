"""Checkpoints: Orbax's manager over the state and the position in the data; finding and loading one.

A run keeps them in MODEL_DIR/checkpoints/STEP, each with the items `state` (step, params, opt_state), `data` (JSON) and,
where the best one is kept, `best` (JSON: which one that was when this one was saved).
"""

import dataclasses
import functools
import logging
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers as policies

from lmirl_jax import files, sharding
from lmirl_jax.arguments import Count, checked
from lmirl_jax.training.checkpoint_folders import finished_steps, is_finished, put_unfinished_aside
from lmirl_jax.training.checkpoint_shapes import check_extra, check_shapes
from lmirl_jax.training.state import TrainState, build, init_params
from lmirl_jax.types import ModelConfig, UserError

_log = logging.getLogger(__name__)


@checked
@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and what to keep.

    Args:
        period: updates between checkpoints; the last step of a run always saves.
        keep: how many of the newest stay, beside the best one; None for all.
        keep_period: checkpoints at multiples of it stay for good; None for no others.
        asynchronous: write while training goes on.
    """

    period: Count = 1000
    keep: Count | None = 3
    keep_period: Count | None = None
    asynchronous: bool = True


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
        put_unfinished_aside(model_dir / "checkpoints")
        self._config = config
        self._best = _OneStep()
        kept = [policies.LatestN(config.keep), self._best]
        if config.keep_period is not None:
            kept.append(policies.EveryNSteps(config.keep_period))
        json = ocp.JsonCheckpointHandler
        self._manager = ocp.CheckpointManager(
            model_dir / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                enable_async_checkpointing=config.asynchronous,
            ),
            item_handlers={"state": ocp.StandardCheckpointHandler(), "data": json(), "best": json()},
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def is_due(self, step: int) -> bool:
        return step % self._config.period == 0

    def preempted(self, step: int) -> bool:
        """Whether the cluster is about to end this run (agreed between all processes)."""
        return self._manager.reached_preemption(step)

    def path(self, step: int) -> epath.Path:
        return self._manager.directory / str(step)

    def save(
        self, step: int, state: TrainState, data_state: dict[str, Any], best: dict[str, Any] | None = None
    ) -> None:
        """Saves, unless that step is there; returns as soon as the arrays are copied off the devices.

        Args:
            step: updates made.
            state: of the training.
            data_state: the position in the data.
            best: `Best.state()`; the checkpoint of its `step` is not deleted.
        """
        if self._manager.latest_step() == step:
            return
        self._check_space(step, state)
        items = {"state": ocp.args.StandardSave(_as_dict(state)), "data": ocp.args.JsonSave(data_state)}
        if best is not None:
            items["best"] = ocp.args.JsonSave(best)
            self._best.step = best["step"]
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

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
    ) -> tuple[TrainState, dict[str, Any], dict[str, Any] | None]:
        """Loads a checkpoint onto the mesh at hand, whatever the mesh it was saved from: what `save` was given."""
        where = self.path(step)
        metadata = self._manager.item_metadata(step)["state"]
        check_shapes(metadata, shapes.params, str(where), resumed=True)
        check_extra(metadata, shapes.extra, str(where))
        targets = _as_dict(_placed(shapes, shardings))
        items = {"state": ocp.args.StandardRestore(targets), "data": ocp.args.JsonRestore()}
        if (where / "best").is_dir():
            items["best"] = ocp.args.JsonRestore()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {where} does not fit this run's optimizer ({_first_line(error)}): use the OPTIMIZER it was "
                "made with, or a new MODEL_DIR with INITIAL_CHECKPOINT_PATH to start from its parameters alone"
            ) from error
        return TrainState(**restored["state"]), restored["data"], restored.get("best")

    def wait(self) -> None:
        """Returns when what was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


@dataclasses.dataclass
class _OneStep(policies.PreservationPolicy):
    """Keeps the checkpoint of one step, which changes from save to save."""

    step: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def find_checkpoint(path: str) -> epath.Path:
    """The folder of one checkpoint: given itself, a run's MODEL_DIR (then its newest) or MODEL_DIR/checkpoints/best."""
    given = files.absolute(path)
    if is_finished(given):
        return given
    if given.parent.name == "checkpoints" and given.name.isdigit() and given.is_dir():
        raise UserError(
            f"the checkpoint {given} is not finished: name another, or {given.parent.parent} for the newest that is"
        )
    if given.name == "best" and given.parent.name == "checkpoints":
        return _best_checkpoint(given)
    steps = given / "checkpoints" if (given / "checkpoints").is_dir() else given
    found, unfinished = finished_steps(steps)
    if unfinished:
        names = ", ".join(step.name for step in unfinished)
        used = f"{found[-1].name} is the newest that is" if found else "there is no other"
        _log.warning("unfinished checkpoints in %s: %s; %s", steps, names, used)
    if not found:
        raise UserError(
            f"no checkpoint at {given}: name a run's MODEL_DIR, or one of its checkpoints/STEP folders"
            + ("" if given.exists() else " (the folder does not exist)")
        )
    return found[-1]


def _best_checkpoint(given: epath.Path) -> epath.Path:
    """The one that a run's newest checkpoint calls the best."""
    newest = find_checkpoint(str(given.parent))
    step = None
    if (newest / "best").is_dir():
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            step = checkpointer.restore(newest / "best")["step"]
    if step is None:
        raise UserError(f"no best checkpoint at {given}: the run kept none (BEST_METRIC); name {newest}")
    return given.parent / str(step)


def check_params(path: epath.Path, shapes: Any) -> None:
    """Raises a UserError where the parameters of a checkpoint have other shapes than these; reads none of them."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))


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
        # The handler's own: the checkpointer would warn that an item has no metadata of a whole checkpoint.
        check_shapes(checkpointer.handler.metadata(path / "state"), shapes, str(path))
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
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: value for name, value in fields.items() if value is not None}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]

"""Saves the checkpoints of a run with Orbax's manager, deletes those that are not to be kept, and restores them."""

import dataclasses
import shutil
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from lmirl_jax.arguments import Count, check_arguments
from lmirl_jax.checkpoints.adapters import ITEM, AdapterRecord, base_of, read_record
from lmirl_jax.checkpoints.commit import STATE, RestoreState, SaveState, StateHandler, temporary_path_class
from lmirl_jax.checkpoints.load import load_params
from lmirl_jax.checkpoints.manifest import check
from lmirl_jax.checkpoints.newest import keep_newest_whole
from lmirl_jax.checkpoints.shapes import add_shardings, check_extra, check_shapes
from lmirl_jax.models.trainable import frozen, join, trainable
from lmirl_jax.types import UserError


@runtime_checkable
class Saved(Protocol):
    """The state that a run saves: a dataclass with the parameters, the learner's other state, and more."""

    @property
    def params(self) -> Any: ...

    @property
    def extra(self) -> Any: ...


State = TypeVar("State", bound=Saved)


@check_arguments
@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Chooses when to save, and which checkpoints to keep.

    Args:
        period: the number of updates between checkpoints; the last step of a run is always saved.
        keep: the number of newest checkpoints that are kept, beside the best one; None for all.
        keep_period: checkpoints at multiples of this step are never deleted; None for no such checkpoints.
        asynchronous: whether training goes on while a checkpoint is written.
    """

    period: Count = 1000
    keep: Count | None = 3
    keep_period: Count | None = None
    asynchronous: bool = True


class Checkpoints:
    """The checkpoints of a run, which goes on from the newest whole one: any after it are renamed.

    Args:
        model_dir: the folder of the run.
        config: when to save, and which checkpoints to keep.
        adapter: what is recorded of the base, where the run trains adapters; the base itself is not saved.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """

    def __init__(self, model_dir: epath.Path, config: CheckpointConfig, adapter: AdapterRecord | None = None):
        # A step whose files were just compared is not compared again.
        self._checked = keep_newest_whole(model_dir / "checkpoints")
        self._config, self._adapter = config, adapter
        self._best = _OneStep()
        preservation: list[policies.PreservationPolicy] = [policies.LatestN(config.keep), self._best]
        if config.keep_period is not None:
            preservation.append(policies.EveryNSteps(config.keep_period))
        json = ocp.JsonCheckpointHandler
        self._manager = ocp.CheckpointManager(
            model_dir / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(preservation),
                enable_async_checkpointing=config.asynchronous,
                temporary_path_class=temporary_path_class(model_dir / "checkpoints"),
            ),
            item_handlers={STATE: StateHandler()} | {name: json() for name in ("data", "best", ITEM)},
        )

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, or of one that is being saved."""
        return self._manager.latest_step()

    def is_due(self, step: int) -> bool:
        return step % self._config.period == 0

    def preempted(self, step: int) -> bool:
        """Whether the cluster is about to end this run (agreed between all processes)."""
        return self._manager.reached_preemption(step)

    def path(self, step: int) -> epath.Path:
        return self._manager.directory / str(step)

    def save(
        self, step: int, state: Saved, data_state: dict[str, Any], best: dict[str, Any] | None = None
    ) -> None:
        """Saves the state unless this step is saved already; returns as soon as the arrays are copied from the devices.

        Args:
            step: the number of updates made.
            state: the state of the training, a dataclass; of its parameters only those that are trained are saved.
            data_state: the position in the data.
            best: `Best.state()`; the checkpoint of its `step` is not deleted.

        Raises:
            UserError: the disk has no room for it.
        """
        if self._manager.latest_step() == step:
            return
        saved = _saved(state)
        # Orbax would wait too. Before that, the disk still holds what the save before it is about to delete.
        self._manager.wait_until_finished()
        self._check_space(step, saved)
        items = {STATE: SaveState(saved), "data": ocp.args.JsonSave(data_state)}
        if self._adapter is not None:
            items[ITEM] = ocp.args.JsonSave(self._adapter.as_json())
        if best is not None:
            items["best"] = ocp.args.JsonSave(best)
            self._best.step = best["step"]
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def _check_space(self, step: int, state: Any) -> None:
        """Raises a UserError before a write that would fill the disk and leave an incomplete checkpoint."""
        if "://" in str(self._manager.directory):
            return
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._manager.directory).free
        if free < needed:
            raise UserError(
                f"the checkpoint of step {step} needs {needed / 1e6:,.1f} MB and {self._manager.directory} has "
                f"{free / 1e6:,.1f} MB left: free some, then run the same command again"
            )

    def restore(
        self, step: int, shapes: State, shardings: State
    ) -> tuple[State, dict[str, Any], dict[str, Any] | None]:
        """Loads a checkpoint onto this mesh; it may have been saved from another mesh.

        Args:
            step: the step of the checkpoint.
            shapes: a state of `jax.ShapeDtypeStruct`.
            shardings: the sharding of each part.

        Returns:
            The state, the position in the data and `best`, as `save` took them.

        Raises:
            UserError: the checkpoint is damaged, or of another model, learner or optimizer.
        """
        where = self.path(step)
        if step != self._checked:
            check(where)
        self._checked = None
        metadata = self._manager.item_metadata(step)["state"]
        check_shapes(metadata, trainable(shapes.params), str(where), resumed=True)
        check_extra(metadata, shapes.extra, str(where))
        targets = _saved(add_shardings(shapes, shardings))
        items = {STATE: RestoreState(targets), "data": ocp.args.JsonRestore()}
        if (where / "best").is_dir():
            items["best"] = ocp.args.JsonRestore()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"checkpoint {where} does not fit this run's optimizer ({_first_line(error)}): use the OPTIMIZER it was "
                "made with, or a new MODEL_DIR with INITIAL_CHECKPOINT_PATH to start from its parameters alone"
            ) from error
        found = dict(restored["state"])
        base = frozen(shapes.params)
        if base:
            # What a learner shares with the base is not saved either.
            record = read_record(where)
            assert record is not None
            kept = load_params(base_of(record, where), base, frozen(shardings.params))
            found["params"] = join(found["params"], kept)
        return type(shapes)(**found), restored["data"], restored.get("best")

    def wait(self) -> None:
        """Waits until all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


@dataclasses.dataclass
class _OneStep(policies.PreservationPolicy):
    """Preserves the checkpoint of one step, which each save may change."""

    step: int | None = None

    def should_preserve(self, checkpoints, *, context):
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def _saved(state: Any) -> dict[str, Any]:
    """The parts of a state that a checkpoint holds."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    fields["params"] = trainable(fields["params"])
    return {name: value for name, value in fields.items() if value is not None}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]

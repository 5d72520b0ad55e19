"""Learners define the update of a run. The trainer only knows the protocol; `Offline` is the learner for demonstrations."""

import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Key

from lmirl_jax import sharding, tiles
from lmirl_jax.arguments import LossFunction, NonNegative, Schedule, check_arguments
from lmirl_jax.models import LoRAConfig
from lmirl_jax.models.abstract import build
from lmirl_jax.models.model_flops import training_flops
from lmirl_jax.models.trainable import frozen
from lmirl_jax.training.finite import check_finite
from lmirl_jax.training.soft_q_config import SoftQConfig, check_objective
from lmirl_jax.training.state import TrainState, on_devices, on_host, state_shardings
from lmirl_jax.training.step import TokenLoss, train_step
from lmirl_jax.types import Batch, BatchIterator, Model, ModelConfig, Objective, UserError

_log = logging.getLogger(__name__)

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings of the run that every learner needs.

    Args:
        model: the recipe of the policy.
        optimizer: the optimizer of the policy.
        mesh: the devices.
        key: the key of the run.
        batch_size: the number of rows of a global batch of demonstrations.
        microbatches: the number of parts of the batch whose gradients are summed one after the other.
        rows_together: the number of consecutive rows that belong together; see `TrainData`.
        has_rewards: whether the demonstrations have given rewards.
        has_labels: whether the data say which answers are right.
        has_preferences: whether each two rows are a chosen and a rejected answer.
        packed: whether several demonstrations may share a row.
        skip_nonfinite: whether an update with a loss or a gradient that is not finite leaves the state as it was.
        offload_optimizer: whether the optimizer's state lies in the memory of the hosts between updates.
    """

    model: ModelConfig
    optimizer: optax.GradientTransformation
    mesh: Mesh
    key: Key[Array, ""]
    batch_size: int
    microbatches: int = 1
    rows_together: int = 1
    has_rewards: bool = False
    has_labels: bool = False
    has_preferences: bool = False
    packed: bool = False
    skip_nonfinite: bool = False
    offload_optimizer: bool = False

    @property
    def dropout_key(self) -> Key[Array, ""]:
        return jax.random.fold_in(self.key, 1)

    @functools.cached_property
    def graph(self) -> nnx.GraphDef:
        """The policy's network without its arrays."""
        return build(self.model)[0]

    @functools.cached_property
    def policy_state(self) -> tuple[TrainState, TrainState]:
        """The shapes and the shardings of the policy's part of the state."""
        shapes, shardings = state_shardings(self.mesh, self.model, self.optimizer)
        return shapes, on_host(shardings) if self.offload_optimizer else shardings

    def first_policy(self, state: TrainState) -> Model:
        """The policy that the run began with: the base without its adapters, or a copy that the state holds."""
        if isinstance(self.model, LoRAConfig):
            base = self.model
            graph = nnx.graphdef(nnx.eval_shape(lambda: base.build_base(self.key)))
            return nnx.merge(graph, frozen(state.params))
        return nnx.merge(self.graph, state.extra["reference"])

    def model_flops(self, rows: int, lengths: Mapping[str, int]) -> float | None:
        """The operations that an update needs, on all devices together; None for adapters, whose base is not trained.

        Args:
            rows: the rows that the loss is taken of.
            lengths: the places of a row for `inputs` and `targets`, filled or not.
        """
        network = getattr(self.model, "network", None)
        if network is None:
            return None
        axes = sharding.logical_axes(build(self.model)[1])
        shapes = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree_util.tree_leaves_with_path(self.policy_state[0].params)
        }
        return training_flops(network, axes, shapes, rows, lengths)

    def soft_q_form(self, shape: tuple[int, int], config: SoftQConfig) -> str:
        """Says in words how soft Q-values of a batch of this shape are computed."""
        params = self.policy_state[0].params
        kernel = jax.eval_shape(lambda params: nnx.merge(self.graph, params).unembedding().kernel, params)
        return tiles.describe((shape[0] // self.microbatches, *shape[1:]), kernel.shape, config.block_size)


@dataclasses.dataclass(frozen=True)
class Updates:
    """The functions with which the trainer runs a learner.

    Args:
        shapes, shardings: those of the state, including `extra`.
        step: the compiled update, from the state and a batch of demonstrations to the next state and this update's
            metrics, among them `loss`, `target_tokens` and `nonfinite`. The memory of the given state is reused (donated).
        draws_before: whether new rollouts are drawn before an update, given its number (1 for the first).
        draw: returns the state with new rollouts; the memory of those that it replaces is reused.
        describe: says in one line how a batch of a given shape is computed.
        extra: makes `TrainState.extra` from the policy's first parameters and a key; a pure function.
        prompts: the iterator of its prompts, if it has any, whose position is part of a checkpoint.
        from_scratch: the reason why the learner should not start from random parameters; None if it may.
        model_flops: the operations that an update with a batch needs; None where that is not known.
        alarm: takes the metrics of a step and returns a line about a problem, or None.
    """

    shapes: TrainState
    shardings: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    describe: Callable[[tuple[int, int]], str]
    draws_before: Callable[[int], bool] = lambda number: False
    draw: Callable[[TrainState], TrainState] = lambda state: state
    extra: Callable[[Any, Key[Array, ""]], Any] = lambda params, key: None
    prompts: BatchIterator | None = None
    from_scratch: str | None = None
    model_flops: Callable[[Batch], float | None] = lambda batch: None
    alarm: Callable[[Mapping[str, float]], str | None] = lambda metrics: None


@runtime_checkable
class Learner(Protocol):
    """A recipe of updates."""

    def start(self, setting: Setting) -> Updates:
        """Raises a UserError for settings that do not fit, before anything is computed."""
        ...


@check_arguments
@dataclasses.dataclass(frozen=True)
class Offline:
    """Learns from demonstrations only, with `train_step`.

    Args:
        objective: the per-token loss.
        td_weight: lambda, a number or a schedule over updates.
        soft_q_config: the settings with which soft Q-values are computed.
        from_labels: whether the data must say which answers are right; without labels all answers would be imitated.
    """

    objective: LossFunction
    td_weight: NonNegative | Schedule = 0.0
    soft_q_config: SoftQConfig = dataclasses.field(default_factory=SoftQConfig)
    from_labels: bool = False

    def __post_init__(self):
        check_objective(self.objective, self.soft_q_config)

    def start(self, setting: Setting) -> Updates:
        check_demonstrations(setting, "LEARNER=@training.Offline()")
        if self.from_labels and not setting.has_labels:
            raise UserError(
                "gin/runs/labelled_iqlearn.gin learns from right and wrong answers, and the data have no labels: write true or "
                "false as 'label' in every row; a column of 0 and 1 is one that COLUMNS names, such as {'label': 'correct'}"
            )
        if "rewards" not in inspect.signature(self.objective).parameters:
            warn_of_unused_rewards(
                setting, f"OBJECTIVE={getattr(self.objective, '__name__', self.objective)}"
            )
        shapes, shardings = setting.policy_state
        step = functools.partial(
            train_step,
            graph=setting.graph,
            loss=TokenLoss(self.objective, self.td_weight, self.soft_q_config),
            optimizer=setting.optimizer,
            key=setting.dropout_key,
            microbatches=setting.microbatches,
            rows_together=setting.rows_together,
        )
        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=lambda shape: f"soft Q-values: {setting.soft_q_form(shape, self.soft_q_config)}",
            model_flops=lambda batch: setting.model_flops(batch.weights.shape[0], _lengths(batch)),
        )


def _lengths(batch: Batch) -> dict[str, int]:
    prompts = 0 if batch.prompt_tokens is None else batch.prompt_tokens.shape[1]
    return {"inputs": prompts, "targets": batch.weights.shape[1]}


def jit_update(step: Callable, setting: Setting, shardings: TrainState) -> Callable:
    """Compiles `step(state, batch) -> (state, metrics)` for the mesh; the memory of the state is donated; see `check_finite`."""
    return jax.jit(
        on_devices(check_finite(step, setting.skip_nonfinite), shardings),
        in_shardings=(shardings, sharding.batch_sharding(setting.mesh)),
        out_shardings=(shardings, sharding.replicated_sharding(setting.mesh)),
        donate_argnums=0,
        compiler_options=sharding.compiler_options(setting.mesh),
    )


def warn_of_unused_rewards(setting: Setting, user: str) -> None:
    """Says, before training, that the rewards of the demonstrations have no effect."""
    if setting.has_rewards and jax.process_index() == 0:
        _log.warning("the data give rewards, and %s does not use them", user)


def check_demonstrations(setting: Setting, user: str) -> None:
    """Raises a UserError where rejected answers would be learnt as demonstrations."""
    if setting.has_preferences:
        raise UserError(
            f"{user} would learn rejected answers too: set data.TrainDataset.preferences = False, or "
            "LEARNER=@labelled.Preferences()"
        )


def check_no_labels(setting: Setting, user: str) -> None:
    """Raises a UserError where answers that the data label wrong would be taken for right ones."""
    if setting.has_labels:
        raise UserError(
            f"{user} takes every answer for a right one, and the data have labels: leave wrong answers and `label` out of the "
            "data, or learn from them with gin/runs/labelled_iqlearn.gin"
        )


def check_objective_takes(objective: Objective, *names: str) -> None:
    missing = [name for name in names if name not in inspect.signature(objective).parameters]
    if missing:
        name = getattr(objective, "__name__", repr(objective))
        raise UserError(
            f"OBJECTIVE={name} does not take {' or '.join(missing)}, which this learner gives: use @objectives.iqlearn "
            "(gin/objectives/iqlearn*.gin)"
        )

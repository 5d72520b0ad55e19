"""Computes the soft Q-values of a model for training."""

import dataclasses

from jaxtyping import Array, Key

from lmirl_jax import soft_q
from lmirl_jax.arguments import Positive, Whole, check_arguments, trace_objective
from lmirl_jax.types import Batch, Model, Objective, SoftQ


@check_arguments
@dataclasses.dataclass(frozen=True)
class SoftQConfig:
    """The settings with which soft Q-values are computed from hidden states.

    Args:
        temperature: the temperature of `SoftQ.tempered`, for objectives that use it (GEM); None does not compute it.
        block_size: the number of tokens whose logits are in memory at a time; None chooses by size, 0 takes all (dense).

    Raises:
        UserError: a value out of range.
    """

    temperature: Positive | None = None
    block_size: Whole | None = None


def read_soft_q(
    model: Model, batch: Batch, dropout_keys: Key[Array, " batch"] | None, config: SoftQConfig
) -> SoftQ:
    """Computes soft Q-values with all fields that objectives and metrics may use."""
    return soft_q.from_model(
        model,
        batch,
        dropout_keys,
        temperature=config.temperature,
        block_size=config.block_size,
        with_entropy=True,
        with_sum=True,
        with_max=True,
    )


def check_objective(objective: Objective, config: SoftQConfig) -> None:
    """Raises a UserError for an objective that needs a field that these settings do not compute, such as `tempered`."""
    trace_objective(objective, absent=() if config.temperature is not None else ("tempered",))

"""How training reads soft Q-values off a model's hidden states."""

import dataclasses

from jaxtyping import Array, Key

from lmirl_jax import soft_q
from lmirl_jax.arguments import Positive, Whole, check_arguments, trace_objective
from lmirl_jax.types import Batch, Model, Objective, SoftQ


@check_arguments
@dataclasses.dataclass(frozen=True)
class SoftQConfig:
    """How soft Q-values are read off the hidden states.

    Args:
        temperature: of `SoftQ.tempered`, for objectives that use it (GEM); None: not computed.
        block_size: tokens whose logits exist at a time; None: by size, 0: all (dense).

    Raises:
        UserError: a value out of range.
    """

    temperature: Positive | None = None
    block_size: Whole | None = None


def read_soft_q(
    model: Model, batch: Batch, dropout_keys: Key[Array, " batch"] | None, config: SoftQConfig
) -> SoftQ:
    """Soft Q-values with all that objectives and metrics may ask for."""
    return soft_q.of_model(
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
    """Raises the UserError of an objective that needs what soft Q-values read so do not have, such as a temperature."""
    trace_objective(objective, absent=() if config.temperature is not None else ("tempered",))

"""Keeps values that are not finite out of the state: the check is a part of the compiled update."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lmirl_jax.training.state import TrainState
from lmirl_jax.types import Batch

NONFINITE = "nonfinite"


def is_watched(name: str) -> bool:
    """Whether an update is left out where this metric is not finite: the loss, and the gradient norm of each network."""
    return name == "loss" or name.rsplit("/", 1)[-1] == "gradient_norm"


def check_finite(step: Callable, skip: bool) -> Callable:
    """The update, which also says whether the loss and all gradient norms are finite.

    `optax.apply_if_finite` knows one optimizer's gradients alone, not the loss, nor the other networks of a learner, and lets
    the values through after its limit. Here all networks are kept together, and the limit stops the run.

    Args:
        step: the update, from the state and a batch to the next state and metrics.
        skip: whether an update that is not finite leaves the state as it was, but for the count of updates. It makes every
            network wait for the gradients of all, which a run that stops there, before it saves, need not.

    Returns:
        The same with one more metric, `nonfinite`: 1 where a value is not finite, and 0 elsewhere.
    """

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        new, metrics = step(state, batch)
        finite = all_finite(metrics)
        if skip:
            # The data and the random numbers of dropout go on, as after any update.
            old = dataclasses.replace(state, step=new.step)
            new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, old)
        return new, {**metrics, NONFINITE: 1.0 - finite.astype(jnp.float32)}

    return update


def all_finite(metrics: Mapping[str, Any]) -> jax.Array:
    """Whether the loss and all gradient norms are finite."""
    return jnp.all(jnp.isfinite(jnp.stack([value for name, value in metrics.items() if is_watched(name)])))

"""Gives optimizers access to the logical names of the parameters' axes, which the model defines."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from flax import nnx

from lmirl_jax import sharding
from lmirl_jax.types import UserError

Axes = Mapping[str, tuple[str, ...]]


class ByAxes(optax.GradientTransformation):
    """An optimizer that depends on the names of a parameter's axes; `for_model` passes it those of a model.

    Without a model it accepts only vectors and matrices, each as one parameter.
    """

    make: Callable[[Axes], optax.GradientTransformation]

    def __new__(cls, make: Callable[[Axes], optax.GradientTransformation]) -> "ByAxes":
        """Takes a function that makes an optimizer from the axes of each parameter, by its path."""
        optimizer = super().__new__(cls, *make({}))
        optimizer.make = make
        return optimizer


def for_model(optimizer: optax.GradientTransformation, variables: nnx.State) -> optax.GradientTransformation:
    """Returns the optimizer for a model's parameters; only a `ByAxes` depends on the model.

    Args:
        optimizer: an optax optimizer.
        variables: the model's state, its arrays or their shapes, with the names of their axes.
    """
    return optimizer.make(sharding.logical_axes(variables)) if isinstance(optimizer, ByAxes) else optimizer


def named_axes(axes: Axes, path: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """The names of a parameter's axes; empty names for a vector or a matrix whose axes the model does not name.

    Raises:
        UserError: a parameter with more axes that the model does not name.
    """
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name in axes:
        return axes[name]
    if len(shape) > 2:
        raise UserError(
            f"the optimizer does not know which of the {len(shape)} axes of {name} are layers and heads: make it with "
            "training.for_model(optimizer, variables), the variables as nnx.state(model) gives them"
        )
    return ("",) * len(shape)


def in_a_layer(names: tuple[str, ...]) -> tuple[int, ...]:
    """The axes of a parameter that belong to one layer."""
    return tuple(i for i, name in enumerate(names) if name != "layers")

"""AdamW and Adafactor, after a clip of the global gradient norm; the learning rate is part of the optimizer's state."""

import functools
from collections.abc import Callable

import jax
import optax

from lmirl_jax.arguments import (
    Count,
    NonNegative,
    Positive,
    PositiveShare,
    Schedule,
    ShareBelowOne,
    check_arguments,
)
from lmirl_jax.training.adafactor import scale_by_adafactor
from lmirl_jax.training.parameter_axes import Axes, ByAxes, in_a_layer, named_axes


def _with_learning_rate(
    make: Callable[[float], optax.GradientTransformation],
    learning_rate: float | Schedule,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    """Makes an optimizer that clips and then updates; its state holds the learning rate of each step for the metrics."""

    def make_clipped(learning_rate):
        clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
        return optax.chain(clip, make(learning_rate))

    return optax.inject_hyperparams(make_clipped)(learning_rate=learning_rate)


@check_arguments
def adamw(
    learning_rate: Positive | Schedule,
    b1: ShareBelowOne = 0.9,
    b2: ShareBelowOne = 0.999,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
    clip_norm: Positive | None = 1.0,
    decay_norms_and_biases: bool = True,
) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm.

    Args:
        learning_rate: a number or a schedule over updates.
        b1, b2: the decay rates of the two moments.
        eps: a constant that keeps the step finite where the second moment is 0.
        weight_decay: the decoupled weight decay, which is scaled by the learning rate.
        clip_norm: the largest global gradient norm, or None.
        decay_norms_and_biases: whether norm scales, biases and relative position biases decay too, as in
            optax and T5X; False leaves these out, as Hugging Face does.

    Returns:
        The optimizer.
    """

    def make(axes: Axes) -> optax.GradientTransformation:
        def decays(path, parameter) -> bool:
            names = named_axes(axes, path, parameter.shape)
            return len(in_a_layer(names)) > 1 and "relpos_buckets" not in names

        mask = None if decay_norms_and_biases else functools.partial(jax.tree_util.tree_map_with_path, decays)

        def update(rate):
            return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)

        return _with_learning_rate(update, learning_rate, clip_norm)

    return make({}) if decay_norms_and_biases else ByAxes(make)


@check_arguments
def adafactor(
    learning_rate: Positive | Schedule,
    multiply_by_parameter_scale: bool = True,
    decay_rate: PositiveShare = 0.8,
    min_dim_size_to_factor: Count = 128,
    clip_norm: Positive | None = None,
) -> optax.GradientTransformation:
    """T5X's Adafactor, which keeps second moments of matrices as row and column means, and clips each update.

    Each layer of a stack is a separate matrix, in which all heads of an attention form one axis.

    Args:
        learning_rate: a number or a schedule; with `multiply_by_parameter_scale` it is relative to the size of each matrix.
        multiply_by_parameter_scale: whether updates are scaled by the size of the matrix, as in T5's training.
        decay_rate: the exponent of the decay of the second moments.
        min_dim_size_to_factor: matrices with fewer rows or columns are not factored.
        clip_norm: the largest global gradient norm, or None.

    Returns:
        The optimizer.
    """

    def make(axes: Axes) -> optax.GradientTransformation:
        scale = scale_by_adafactor(axes, decay_rate, min_dim_size_to_factor, multiply_by_parameter_scale)
        return _with_learning_rate(
            lambda rate: optax.chain(scale, optax.scale_by_learning_rate(rate)), learning_rate, clip_norm
        )

    return ByAxes(make)

"""Optimizers by name: optax's, behind a clip of the global gradient norm, with a learning rate that can be read back."""

from collections.abc import Callable

import optax

from lmirl_jax.types import Schedule


def _with_learning_rate(
    make: Callable[[float], optax.GradientTransformation],
    learning_rate: float | Schedule,
    clip_norm: float | None,
) -> optax.GradientTransformation:
    """Clips, then updates; the learning rate of each step lies in the state, where metrics find it."""

    def clipped(learning_rate):
        clip = optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
        return optax.chain(clip, make(learning_rate))

    return optax.inject_hyperparams(clipped)(learning_rate=learning_rate)


def adamw(
    learning_rate: float | Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip_norm: float | None = 1.0,
) -> optax.GradientTransformation:
    """AdamW on gradients clipped to a global norm.

    Args:
        learning_rate: a number or a schedule of the updates made.
        b1, b2: decay of the two moments.
        eps: keeps the step finite where the second moment is 0.
        weight_decay: decoupled from the gradient, scaled by the learning rate; on every parameter.
        clip_norm: the largest global gradient norm, or None.

    Returns:
        The optimizer.
    """
    return _with_learning_rate(
        lambda rate: optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay),
        learning_rate,
        clip_norm,
    )


def adafactor(
    learning_rate: float | Schedule,
    multiply_by_parameter_scale: bool = True,
    decay_rate: float = 0.8,
    min_dim_size_to_factor: int = 128,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Adafactor: second moments of matrices kept as row and column sums; it clips its own updates.

    A stack of layers is one parameter here: its update is clipped and scaled as one.

    Args:
        learning_rate: relative to each parameter's size where `multiply_by_parameter_scale`.
        multiply_by_parameter_scale: as T5 is trained.
        decay_rate: exponent of the second moment's decay.
        min_dim_size_to_factor: smaller matrices keep their full second moment.
        clip_norm: the largest global gradient norm, or None.

    Returns:
        The optimizer.
    """

    def make(rate):
        return optax.adafactor(
            rate,
            min_dim_size_to_factor=min_dim_size_to_factor,
            decay_rate=decay_rate,
            multiply_by_parameter_scale=multiply_by_parameter_scale,
        )

    return _with_learning_rate(make, learning_rate, clip_norm)

"""Adafactor as in T5X: each layer of a stack is updated separately, and all heads of an attention form one axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from lmirl_jax.training.parameter_axes import in_a_layer, named_axes

# T5X's epsilon1, epsilon2 and clipping_threshold.
SQUARE_FLOOR, SMALLEST_SCALE, LARGEST_RMS = 1e-30, 1e-3, 1.0


class AdafactorState(NamedTuple):
    """The number of updates, and the second moments of each parameter: of rows and columns if it is factored, else of elements.

    A moment has as many axes as its parameter. Axes over which it is averaged have size 1, as do all axes of an unused moment.
    """

    count: Any
    v_row: Any
    v_col: Any
    v: Any


class _Form(NamedTuple):
    """The axes of a parameter that form one matrix, and those that are its rows and its columns (none if not factored)."""

    matrix: tuple[int, ...]
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()


def _form(names: tuple[str, ...], shape: tuple[int, ...], min_size: int) -> _Form:
    matrix = in_a_layer(names)
    # If heads are a separate axis, the axis of the embedding is one side of the matrix and all others the other side, as in T5X.
    rows = tuple(i for i in matrix if names[i] == "embed") if len(matrix) > 2 else matrix[:1]
    columns = tuple(i for i in matrix if i not in rows)
    smaller = min(math.prod(shape[i] for i in part) for part in (rows, columns))
    return _Form(matrix, rows, columns) if rows and columns and smaller >= min_size else _Form(matrix)


def _root_mean_square(x: Float[Array, "..."], axes: tuple[int, ...]) -> Float[Array, "..."]:
    return jnp.sqrt(jnp.mean(x * x, axis=axes, keepdims=True))


def scale_by_adafactor(
    axes: Mapping[str, tuple[str, ...]],
    decay_rate: float,
    min_dim_size_to_factor: int,
    multiply_by_parameter_scale: bool,
) -> optax.GradientTransformation:
    """Scales gradients by factored second moments, clips the update of each matrix, and scales it by the size of the matrix.

        R = decay R + (1 - decay) mean over columns of (G ** 2 + 1e-30),  C alike over rows,  decay = 1 - step ** -decay_rate
        U = G / sqrt(R C / mean(R)),   U / max(1, rms(U)) * max(1e-3, rms(parameter))

    Args:
        axes: logical names of each parameter's axes, by its path.
        decay_rate: the exponent of the decay of the moments.
        min_dim_size_to_factor: a matrix with fewer rows or columns is not factored.
        multiply_by_parameter_scale: whether the last factor is used.

    Returns:
        The transformation, without the learning rate and the sign.

    Source: https://arxiv.org/abs/1804.04235, algorithms 4 and 6, and T5X's adafactor.py.
    """

    def form(path: Any, parameter: Any) -> _Form:
        return _form(named_axes(axes, path, parameter.shape), parameter.shape, min_dim_size_to_factor)

    def init(params: Any) -> AdafactorState:
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        moments = [_first_moments(form(path, leaf), leaf.shape) for path, leaf in leaves]
        return AdafactorState(jnp.zeros((), jnp.int32), *_unzip(tree, moments, 3))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AdafactorState]:
        decay = 1.0 - jnp.asarray(state.count + 1, jnp.float32) ** -decay_rate
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        others = (jax.tree.leaves(part) for part in (updates, *state[1:]))
        results = []
        for (path, parameter), gradient, *moments in zip(leaves, *others, strict=True):
            parts = form(path, parameter)
            scaled, *moments = _scale(parts, decay, gradient, *moments)
            scaled /= jnp.maximum(1.0, _root_mean_square(scaled, parts.matrix) / LARGEST_RMS)
            if multiply_by_parameter_scale:
                scaled *= jnp.maximum(SMALLEST_SCALE, _root_mean_square(parameter, parts.matrix))
            results.append((scaled, *moments))
        updates, *moments = _unzip(tree, results, 4)
        return updates, AdafactorState(state.count + 1, *moments)

    return optax.GradientTransformation(init, update)


def _first_moments(form: _Form, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    def zeros(averaged: tuple[int, ...], used: bool) -> Array:
        return jnp.zeros([1 if i in averaged or not used else size for i, size in enumerate(shape)])

    factored = bool(form.rows)
    return zeros(form.columns, factored), zeros(form.rows, factored), zeros((), not factored)


def _scale(
    form: _Form, decay: Array, gradient: Array, row: Array, column: Array, whole: Array
) -> tuple[Array, Array, Array, Array]:
    """The gradient divided by the root of its second moment, and the new moments."""
    squared = gradient * gradient + SQUARE_FLOOR
    if not form.rows:
        whole = decay * whole + (1 - decay) * squared
        return gradient * whole**-0.5, row, column, whole
    row = decay * row + (1 - decay) * jnp.mean(squared, axis=form.columns, keepdims=True)
    column = decay * column + (1 - decay) * jnp.mean(squared, axis=form.rows, keepdims=True)
    # Two roots are taken, because the product can be too small for a float32.
    share = row / jnp.mean(row, axis=form.rows, keepdims=True)
    return gradient * share**-0.5 * column**-0.5, row, column, whole


def _unzip(tree: Any, leaves: Sequence[tuple], count: int) -> list[Any]:
    """Splits a tree of tuples into a tuple of trees."""
    return [tree.unflatten([together[i] for together in leaves]) for i in range(count)]

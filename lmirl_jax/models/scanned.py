"""Stacks layers of one kind along a leading axis, so that they are compiled only once."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from lmirl_jax.models.layers import constrain, fold_keys, give_dropout_keys

Remat = Literal["none", "minimal", "full", "minimal_offloaded"]
REMAT: Mapping[Remat, Any] = {
    "none": None,
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "minimal_offloaded": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
}


def stack_layers(make: Callable[[Key[Array, ""]], nnx.Module], count: int, key: Key[Array, ""]) -> nnx.Module:
    """Makes one module that holds the parameters of `count` layers, stacked along a leading axis named `layers`."""
    make_all = nnx.vmap(make, in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
    return make_all(jax.random.split(key, count))


def scan_layers(
    layers: nnx.Module,
    body: Callable[[Any, Array, Any, Any], tuple[Array, Any]],
    x: Array,
    keys: Key[Array, " batch"] | None,
    *,
    count: int,
    remat: Remat,
    unroll: int,
    per_layer: Any = None,
) -> tuple[Array, Any]:
    """Runs `body(layer, x, keys of the layer, settings of the layer) -> (x, output)` over the layers, one after the other.

    Args:
        layers: the module from `stack_layers`.
        body: the computation of one layer.
        x: activations, [batch, length, embed].
        keys: the dropout keys, one for each row; None for no dropout.
        count: the number of layers.
        remat: the activations that the backward pass computes again, a name of `REMAT`.
        unroll: the number of layers in an iteration of the scan.
        per_layer: settings in which layers differ, arrays with one entry for each layer; None for none.

    Returns:
        The activations after the last layer, and the outputs of all layers along a leading axis.
    """
    # jax.lax.scan over the split module, not nnx.scan, which refuses parameters of an outer while_loop (decoding).
    graph, parameters = nnx.split(layers)

    def step(x: Array, inputs: Any) -> tuple[Array, Any]:
        parameters, number, settings = inputs
        layer_keys = None if keys is None else fold_keys(keys, 100 + number)
        layer = give_dropout_keys(nnx.merge(graph, parameters), layer_keys)
        x, output = body(layer, x, layer_keys, settings)
        return constrain(x, "batch", "length", None), output

    if remat != "none":
        step = jax.checkpoint(step, policy=REMAT[remat])
    return jax.lax.scan(step, x, (parameters, jnp.arange(count), per_layer), unroll=min(unroll, count))


def unstack_layers(layers: nnx.Module, count: int) -> tuple[nnx.State, ...]:
    """Splits the parameters by layer for decoding, once; a scan would slice them at every token."""
    parameters = nnx.state(layers)
    return tuple(jax.tree.map(lambda x, number=number: x[number], parameters) for number in range(count))


def merge_layer(layers: nnx.Module, parameters: nnx.State) -> Any:
    """Makes one layer of the stack, with parameters from `unstack_layers`."""
    return nnx.merge(nnx.graphdef(layers), parameters)

"""The state of training, which is created in place on the mesh."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Key

from lmirl_jax import sharding
from lmirl_jax.models import abstract
from lmirl_jax.models.trainable import complement, join, split, trainable
from lmirl_jax.training.parameter_axes import for_model
from lmirl_jax.types import NetworkConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that training carries from step to step. Its shapes and shardings have the same form, so fields have no types.

    Args:
        step: the number of updates made, int32.
        params: the policy's parameters, a nested dict of float32 arrays; with adapters also the base's, in their own type.
        opt_state: the state of its optimizer, which knows only those that are trained (`models.trainable`).
        extra: the other state of a learner, such as a replay buffer or other networks.
    """

    step: Any
    params: Any
    opt_state: Any
    extra: Any = None


def init_params(model: NetworkConfig, key: Key[Array, ""]) -> dict[str, Any]:
    """Initial parameters as a nested dict."""
    return nnx.to_pure_dict(nnx.state(model.build(key)))


def state_shardings(
    mesh: Mesh, model: NetworkConfig, optimizer: optax.GradientTransformation
) -> tuple[TrainState, TrainState]:
    """Shapes and shardings of the state without `extra`.

    Returns:
        A `TrainState` of `jax.ShapeDtypeStruct` and one of `NamedSharding`.
    """
    _, variables = abstract.build(model)
    params = abstract.parameter_shapes(model)
    shardings = sharding.parameter_shardings(mesh, variables)
    trained = trainable(params), trainable(shardings)
    opt_state, opt_shardings = optimizer_shardings(mesh, for_model(optimizer, variables), *trained)
    shapes = TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)
    return shapes, TrainState(sharding.replicated_sharding(mesh), shardings, opt_shardings)


def optimizer_shardings(
    mesh: Mesh, optimizer: optax.GradientTransformation, params: Any, shardings: Any
) -> tuple[Any, Any]:
    """Shapes and shardings of the optimizer's state: what follows a parameter is sharded as the parameter is.

    Args:
        mesh: the device mesh.
        optimizer: the optimizer.
        params: shapes of the parameters.
        shardings: the sharding of each parameter.
    """
    opt_state = jax.eval_shape(optimizer.init, params)
    whole = sharding.replicated_sharding(mesh)

    def like_parameter(leaf, parameter, place):
        if len(leaf.shape) != len(parameter.shape):
            return whole
        # Adafactor's moments are averaged over some axes, and whole there.
        sizes = zip(place.spec, leaf.shape, parameter.shape, strict=True)
        return NamedSharding(mesh, PartitionSpec(*(axis if a == b else None for axis, a, b in sizes)))

    opt_shardings = optax.tree_utils.tree_map_params(
        optimizer.init, like_parameter, opt_state, params, shardings, transform_non_params=lambda _: whole
    )
    return opt_state, opt_shardings


def on_host(shardings: TrainState) -> TrainState:
    """The shardings with the optimizer's state in the memory of the hosts; numbers, which are read at every step, stay."""

    def move(place: NamedSharding) -> NamedSharding:
        return place.with_memory_kind("pinned_host") if len(place.spec) else place

    return dataclasses.replace(shardings, opt_state=jax.tree.map(move, shardings.opt_state))


def on_devices(step: Callable, shardings: TrainState) -> Callable:
    """The update, from a state whose optimizer may lie on the hosts: `jax.jit` takes it back there by its `out_shardings`.

    Args:
        step: the update, from the state and a batch to the next state and metrics.
        shardings: those of the state.
    """
    places = shardings.opt_state
    if all(place.memory_kind != "pinned_host" for place in jax.tree.leaves(places)):
        return step

    def update(state: TrainState, batch: Any) -> tuple[TrainState, Any]:
        here = jax.tree.map(
            lambda x, place: jax.device_put(x, place.with_memory_kind("device")), state.opt_state, places
        )
        return step(dataclasses.replace(state, opt_state=here), batch)

    return update


def init_state(
    shardings: TrainState,
    model: NetworkConfig,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    params: Any = None,
    extra: Callable[[Any, Key[Array, ""]], Any] = lambda params, key: None,
) -> TrainState:
    """Makes a new state, each part on the devices that hold it; its values are the same for any mesh.

    Args:
        shardings: the sharding of each part.
        model: the recipe of the network.
        optimizer: the policy's.
        key: the key of the initial parameters, and of the random numbers of `extra`.
        params: given parameters instead of initial ones; those that they lack, such as adapters, are initial ones. Their
            memory is reused.
        extra: makes the other state of the learner from the policy's parameters.

    Returns:
        The state before the first update.
    """
    optimizer = for_model(optimizer, abstract.build(model)[1])

    def make(given: Any, key: Key[Array, ""]) -> TrainState:
        params = init_params(model, key)
        if given is not None:
            params = join(complement(params, given), given)
        more = extra(params, jax.random.fold_in(key, 2))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trainable(params)), more)

    return jax.jit(make, out_shardings=shardings, donate_argnums=0)(params, key)


def apply_gradients(
    state: TrainState, gradients: Any, optimizer: optax.GradientTransformation, graph: nnx.GraphDef
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """Updates the parameters of one network.

    Args:
        state: the network's.
        gradients: the gradients of its parameters, with adapters of theirs alone.
        optimizer: turns gradients into updates.
        graph: the network without its arrays.

    Returns:
        The next state; the gradient's norm and, where the optimizer knows it, the learning rate.
    """
    optimizer = for_model(optimizer, nnx.state(nnx.merge(graph, state.params)))
    trained, kept = split(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
    params = join(optax.apply_updates(trained, updates), kept)
    metrics = {"gradient_norm": optax.tree.norm(gradients)}
    # inject_hyperparams stores the schedule's state and its value under one key; take the value.
    learning_rate = optax.tree_utils.tree_get(
        opt_state, "learning_rate", filtering=lambda path, value: isinstance(value, jax.Array)
    )
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state), metrics

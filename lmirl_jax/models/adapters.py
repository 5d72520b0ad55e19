"""LoRA: adapters of low rank beside the linear maps of a frozen base model of any family.

Source: https://arxiv.org/abs/2106.09685.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Count, Positive, ShareBelowOne, check_arguments
from lmirl_jax.models.attention import OutputProjection, Projection
from lmirl_jax.models.layers import Dense, parameter
from lmirl_jax.models.trainable import ADAPTER
from lmirl_jax.types import Model, ModelConfig, Trunk, UserError

# The linear maps of layers by their names; `wi` is of a plain feed-forward block, `wi_0` and `wi_1` are of a gated one.
MATRICES = ("query", "key", "value", "out", "wi", "wi_0", "wi_1", "wo")
ALL = "all"
# The number of input axes of each kind of linear map; the others of its kernel are those of the output.
LINEAR: Mapping[type, int] = {Dense: 1, Projection: 1, OutputProjection: 2}
# Axes whose parameters are no matrices of the base, however many they are.
SMALL = ("layers", "relpos_buckets")

Matrices = Annotated[
    tuple[str, ...],
    Words(
        f"'{ALL}', or a list of {', '.join(map(repr, MATRICES))}",
        lambda names: len(names) > 0 and (names == ALL or all(name in MATRICES for name in names)),
    ),
]
BaseDtype = Literal["float32", "bfloat16", "float16"]


@check_arguments
@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """A base model, frozen, with an adapter beside each chosen linear map.

        y = x W + alpha / rank * dropout(x) A B

    Args:
        base: the recipe of the base model.
        rank: the width of A's output.
        alpha: the adapter's weight is alpha / rank.
        dropout_rate: the share of an adapter's inputs that are dropped in training.
        matrices: the linear maps, by the names of their modules: 'query', 'key', 'value', 'out', 'wi', 'wi_0', 'wi_1', 'wo';
            or 'all' of them.
        base_dtype: the type in which the base's matrices are stored; None for that of the checkpoint, which `training.train`
            then finds out.

    Raises:
        UserError: a value out of range.
    """

    base: ModelConfig
    rank: Count = 16
    alpha: Positive = 32.0
    dropout_rate: ShareBelowOne = 0.0
    matrices: Matrices | Literal["all"] = ALL
    base_dtype: BaseDtype | None = None

    def __post_init__(self):
        # Gin files may give a list.
        object.__setattr__(self, "matrices", self.matrices if self.matrices == ALL else tuple(self.matrices))
        if isinstance(self.base, LoRAConfig):
            raise UserError("models.LoRAConfig.base is a models.LoRAConfig itself: give it the base model")

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def emb_dim(self) -> int:
        return self.base.emb_dim

    @property
    def scale(self) -> float:
        """The factor on an adapter's output."""
        return self.alpha / self.rank

    def build(self, key: Key[Array, ""]) -> Model:
        return self._adapted(self.base.build(key), key)

    def build_trunk(self, key: Key[Array, ""]) -> Trunk:
        return self._adapted(self.base.build_trunk(key), key)

    def build_base(self, key: Key[Array, ""]) -> Model:
        """The model without its adapters, in the type in which they find it."""
        return _in_dtype(self.base.build(key), self.base_dtype)

    def _adapted(self, model: Any, key: Key[Array, ""]) -> Any:
        _in_dtype(model, self.base_dtype)
        chosen = MATRICES if self.matrices == ALL else self.matrices
        maps = {path: map_ for path, map_ in linear_maps(model).items() if path[-1] in chosen}
        if self.matrices != ALL:
            missing = [name for name in chosen if name not in {path[-1] for path in maps}]
            if missing:
                names = sorted({path[-1] for path in linear_maps(model) if path[-1] in MATRICES})
                raise UserError(
                    f"models.LoRAConfig.matrices names {missing[0]!r}, and the base has none of this name: choose from "
                    f"{', '.join(names)} (LORA_MATRICES)"
                )
        for place, path in enumerate(sorted(maps)):
            linear = maps[path]
            # Not the key of the base, whose parameters are as they would be without adapters.
            adapter_key = jax.random.fold_in(jax.random.fold_in(key, 7), place)
            linear.adapter = Adapter(linear, self, place, key=adapter_key)
        return model


class Adapter(nnx.Module):
    """What is added to the output of a linear map: two matrices of low rank, of which the second is 0 at the start.

    Args:
        linear: the linear map; its kernel may be stacked by layers.
        config: rank, weight and dropout.
        place: distinguishes the dropouts of a layer.
    """

    def __init__(self, linear: Any, config: LoRAConfig, place: int, *, key: Key[Array, ""]):
        self.inputs = LINEAR[type(linear)]
        self.scale, self.dropout_rate, self.place = config.scale, config.dropout_rate, place
        axes = linear.kernel.get_metadata("out_sharding")
        start = 1 if axes[0] == "layers" else 0
        middle = start + self.inputs
        shape, rank = linear.kernel.shape, (config.rank,)
        bound = 1.0 / math.sqrt(math.prod(shape[start:middle]))
        uniform = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.lora_a = parameter(key, uniform, shape[:middle] + rank, (*axes[:middle], "adapter_rank"))
        shape_b = shape[:start] + rank + shape[middle:]
        axes_b = (*axes[:start], "adapter_rank", *axes[middle:])
        self.lora_b = parameter(key, nnx.initializers.zeros, shape_b, axes_b)

    def __call__(self, x: Float[Array, "batch length *inputs"]) -> Float[Array, "batch length *outputs"]:
        low = jnp.tensordot(self._dropped(x), self.lora_a[...].astype(x.dtype), self.inputs)
        # Over a batch axis of one, so that remat 'minimal' does not store this product too, beside the linear map's: that of the
        # rank is quickly made again.
        b = self.lora_b[...].astype(x.dtype)[None]
        made = jax.lax.dot_general(low[None], b, (((3,), (1,)), ((0,), (0,))))[0]
        return made * jnp.asarray(self.scale, x.dtype)

    def _dropped(self, x: Array) -> Array:
        keys = getattr(self, "dropout_keys", None)
        if keys is None or self.dropout_rate == 0.0:
            return x

        def keep(key: Key[Array, ""]) -> Array:
            # Numbers that no other dropout of a layer folds in.
            key = jax.random.fold_in(key, 1000 + self.place)
            return jax.random.bernoulli(key, 1.0 - self.dropout_rate, x.shape[1:])

        return jnp.where(jax.vmap(keep)(keys), x / (1.0 - self.dropout_rate), jnp.zeros((), x.dtype))


def linear_maps(model: nnx.Module) -> dict[tuple[Any, ...], Any]:
    """The linear maps of a network by their paths."""
    return {path: module for path, module in nnx.iter_modules(model) if type(module) in LINEAR}


def merge_adapters(params: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """The parameters of a model without adapters that computes the same: W + alpha / rank * A B.

    Args:
        params: nested dicts; each adapter stands beside the kernel of its linear map.
        scale: alpha / rank.

    Returns:
        Nested dicts without adapters; kernels keep their type.
    """
    merged = {
        name: merge_adapters(part, scale) if isinstance(part, Mapping) else part
        for name, part in params.items()
        if name != ADAPTER
    }
    if ADAPTER in params:
        kernel, adapter = params["kernel"], params[ADAPTER]
        change = scale * _product(kernel, adapter["lora_a"], adapter["lora_b"])
        merged["kernel"] = (kernel.astype(jnp.float32) + change).astype(kernel.dtype)
    return merged


def _product(kernel: Any, a: Any, b: Any) -> Array:
    """A B in the shape of the kernel, layer by layer where it is stacked."""
    is_stacked = a.ndim + b.ndim - 2 > kernel.ndim
    multiply = functools.partial(jnp.tensordot, axes=1)
    return jax.vmap(multiply)(a, b) if is_stacked else multiply(a, b)


def _in_dtype(model: Any, dtype: str | None) -> Any:
    """Changes the type of the matrices of a network, and leaves that of its small parameters, such as norms."""
    for variable in _matrices(model) if dtype is not None else ():
        variable.set_value(variable[...].astype(dtype))
    return model


def _matrices(model: Any) -> Iterator[nnx.Param]:
    for _, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata("out_sharding")
        if len([axis for axis in axes if axis not in SMALL]) > 1 and SMALL[1] not in axes:
            yield variable

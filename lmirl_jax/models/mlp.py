"""The feed-forward block, plain or gated, with the activations that the families use."""

from collections.abc import Callable, Mapping
from typing import Annotated

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.argument_rules import Words
from lmirl_jax.models.layers import Dense, constrain, dropout

# T5X's names; `gelu` is the approximation by tanh there and in flax, `gelu_exact` has the error function.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "linear": lambda x: x,
}

_NAMES = ", ".join(map(repr, ACTIVATIONS))

Activation = Annotated[str, Words(f"one of {_NAMES}", lambda name: name in ACTIVATIONS)]
Activations = Annotated[
    tuple[str, ...],
    Words(
        f"('gelu', 'linear'), or one or two others of {_NAMES}",
        lambda names: len(names) in (1, 2) and all(name in ACTIVATIONS for name in names),
    ),
]


class MLP(nnx.Module):
    """The feed-forward block: with one activation a plain one, with two a gated one.

        y = f(x W) W_o,   or   y = (f(x W_0) * g(x W_1)) W_o

    Source of the gate: https://arxiv.org/abs/2002.05202.
    """

    def __init__(
        self,
        emb_dim: int,
        mlp_dim: int,
        activations: tuple[str, ...],
        dropout_rate: float,
        *,
        key: Key[Array, ""],
    ):
        keys = jax.random.split(key, 3)
        self.activations, self.dropout_rate = activations, dropout_rate
        self.inner_names = ("wi",) if len(activations) == 1 else ("wi_0", "wi_1")
        for name, inner_key in zip(self.inner_names, keys):
            setattr(self, name, Dense((emb_dim, mlp_dim), ("embed", "mlp"), key=inner_key))
        self.wo = Dense((mlp_dim, emb_dim), ("mlp", "embed"), key=keys[2])

    def __call__(
        self, x: Float[Array, "batch length embed"], dropout_keys: Key[Array, " batch"] | None
    ) -> Float[Array, "batch length embed"]:
        first, *gate = (
            ACTIVATIONS[activation](getattr(self, name)(x))
            for name, activation in zip(self.inner_names, self.activations, strict=True)
        )
        inner = first * gate[0] if gate else first
        inner = constrain(inner, "batch", "length", "mlp")
        return self.wo(dropout(inner, self.dropout_rate, dropout_keys, place=1))

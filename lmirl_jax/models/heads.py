"""Heads beside the output layer of a language model: values of states, and values of every next token."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import NonNegative, check_arguments
from lmirl_jax.models.critic import ScalarHead, with_last_state
from lmirl_jax.models.layers import parameter
from lmirl_jax.models.trainable import HEADS
from lmirl_jax.types import Batch, Model, ModelConfig, Trunk, Unembedding, UserError

# The beginning of the names of heads that reward answers.
REWARD = "reward"
Names = Annotated[
    Sequence[str],
    Words("a list of names", lambda names: not isinstance(names, str) and all(name for name in names)),
]


@check_arguments
@dataclasses.dataclass(frozen=True)
class HeadsConfig:
    """A language model with heads on its hidden states. Its own parameters keep their names; those of the heads are `heads/NAME`.

    Args:
        base: the recipe of the language model.
        states: the name of each head with one number for a state.
        actions: the name of each head with a number for every token that may come next.
        guide_weight: what is sampled is the policy times exp(guide_weight * min over `actions`), or at 0 the policy.

    Raises:
        UserError: no head, or two of the same name.
    """

    base: ModelConfig
    states: Names = ()
    actions: Names = ()
    guide_weight: NonNegative = 0.0

    def __post_init__(self):
        for name in ("states", "actions"):
            # Gin files may give a list.
            object.__setattr__(self, name, tuple(getattr(self, name)))
        names = [*self.states, *self.actions]
        if not names or len(set(names)) < len(names):
            raise UserError(
                f"models.HeadsConfig: states={self.states!r} and actions={self.actions!r} must be one or more different names "
                "(REWARD_HEADS)"
            )
        if self.guide_weight and not self.actions:
            raise UserError(
                f"models.HeadsConfig.guide_weight={self.guide_weight}: no head values tokens; set it to 0, or give `actions`"
            )

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    @property
    def emb_dim(self) -> int:
        return self.base.emb_dim

    def build(self, key: Key[Array, ""]) -> Model:
        return self._with_heads(self.base.build(key), key)

    def build_trunk(self, key: Key[Array, ""]) -> Trunk:
        return self.base.build_trunk(key)

    def _with_heads(self, model: Any, key: Key[Array, ""]) -> Any:
        # Not the key of the base, whose parameters are as they would be without heads.
        keys = iter(jax.random.split(jax.random.fold_in(key, 11), len(self.states) + len(self.actions)))
        heads: dict[str, Any] = {name: StateHead(self.emb_dim, key=next(keys)) for name in self.states}
        heads |= {name: ActionHead(self.emb_dim, self.vocab_size, key=next(keys)) for name in self.actions}
        model.heads = nnx.Dict(heads)
        model.guide_names, model.guide_weight = tuple(self.actions), self.guide_weight
        model.reward_names = reward_heads(self)
        return model


class HiddenLayer(nnx.Module):
    """A linear map to as many units, and ReLU."""

    def __init__(self, emb_dim: int, *, key: Key[Array, ""]):
        init = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")
        self.kernel = parameter(key, init, (emb_dim, emb_dim), ("embed", "head"))
        self.bias = parameter(key, nnx.initializers.zeros, (emb_dim,), ("head",))

    def __call__(self, x: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        bias = jnp.reshape(self.bias[...], (1,) * (x.ndim - 1) + (-1,))
        return jax.nn.relu(x @ self.kernel[...].astype(x.dtype) + bias.astype(x.dtype))


class StateHead(nnx.Module):
    """A hidden layer, and a number that is 0 at the start."""

    def __init__(self, emb_dim: int, *, key: Key[Array, ""]):
        self.layer = HiddenLayer(emb_dim, key=key)
        self.out = ScalarHead(emb_dim, key=key)

    def __call__(self, hidden: Float[Array, "batch states embed"]) -> Float[Array, "batch states"]:
        return self.out(self.layer(hidden))


class ActionHead(nnx.Module):
    """A hidden layer, and a number for each token of the vocabulary, 0 at the start.

    Like a language model it gives states and an output layer, so that `soft_q` never has all its numbers in memory.
    """

    def __init__(self, emb_dim: int, vocab_size: int, *, key: Key[Array, ""]):
        self.layer = HiddenLayer(emb_dim, key=key)
        self.kernel = parameter(key, nnx.initializers.zeros, (emb_dim, vocab_size), ("embed", "vocab"))

    def unembedding(self) -> Unembedding:
        return Unembedding(self.kernel[...])


def guidance(model: Any, hidden: Float[Array, "*rows embed"]) -> Float[Array, "*rows vocab"] | None:
    """What is added to the logits of a language model where it is sampled; None where nothing is.

        guide_weight * min_k Q_k(s, .)

    Args:
        model: a language model, with heads or without.
        hidden: its hidden states.

    Source: ILQL, https://arxiv.org/abs/2206.11871, section 4.4; V, which it subtracts, is the same for all tokens of a state.
    """
    weight = getattr(model, "guide_weight", 0.0)
    if not weight:
        return None
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    values = [
        jnp.matmul(head.layer(hidden), head.kernel[...].astype(hidden.dtype), preferred_element_type=wide)
        for head in (getattr(model, HEADS)[name] for name in model.guide_names)
    ]
    return weight * jnp.min(jnp.stack(values), axis=0)


def reward_heads(config: Any) -> tuple[str, ...]:
    """The names of a model's heads of rewards, those of states that begin with 'reward'; none where it is no reward model."""
    names = config.states if isinstance(config, HeadsConfig) else ()
    return tuple(name for name in names if name.startswith(REWARD))


def reward_values(
    model: Any, batch: Batch, dropout_keys: Key[Array, " batch"] | None = None
) -> Float[Array, "heads batch states"]:
    """What each head of rewards says of every state of an answer.

    Args:
        model: a reward model; see `reward_heads`.
        batch: a batch with one answer in each row.
        dropout_keys: one key for each row; None for no dropout.

    Returns:
        The values, [heads, batch, length + 1], in float32: `[..., :-1]` before each token, `[..., 1:]` after each.
    """
    hidden = model.hidden(with_last_state(batch), dropout_keys)
    return jnp.stack([getattr(model, HEADS)[name](hidden) for name in model.reward_names])

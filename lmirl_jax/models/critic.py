"""Scalar heads on a copy of a language model's trunk: learned values, and discriminators.

An answer y_1 .. y_T has T + 1 states. Output t is read before token t + 1 and after token t: the first T outputs are the
values of the states in which each token was chosen, the last T judge each token once it has been read, EOS too.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from lmirl_jax.models.layers import parameter
from lmirl_jax.types import Batch, ModelConfig, UserError


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """A network of scalar heads.

    Args:
        trunk: the language model whose network is used, without its unembedding.
        heads: the name of each head; several share the trunk.

    Raises:
        UserError: no head, or two of the same name.
    """

    trunk: ModelConfig
    heads: tuple[str, ...]

    def __post_init__(self):
        if isinstance(self.heads, str) or not self.heads or len(set(self.heads)) < len(self.heads):
            raise UserError(
                f"models.CriticConfig.heads={self.heads!r} must be one or more different names, such as ('value',)"
            )

    def build(self, key: Key[Array, ""]) -> "Critic":
        return Critic(self, key=key)


class ScalarHead(nnx.Module):
    """An affine map to one number, computed in float32 and 0 at the start."""

    def __init__(self, emb_dim: int, *, key: Key[Array, ""]):
        zeros = nnx.initializers.zeros
        self.kernel = parameter(key, zeros, (emb_dim, 1), ("embed", "scalar"))
        self.bias = parameter(key, zeros, (1,), ("scalar",))

    def __call__(self, x: Float[Array, "batch states embed"]) -> Float[Array, "batch states"]:
        wide = x.astype(np.promote_types(x.dtype, jnp.float32))
        return jnp.tensordot(wide, self.kernel[...], 1)[..., 0] + self.bias[...][None]


class Critic(nnx.Module):
    """Scalars of every state of an answer: before its first token, and after each of them."""

    def __init__(self, config: CriticConfig, *, key: Key[Array, ""]):
        keys = jax.random.split(key, 1 + len(config.heads))
        self.config = config
        self.trunk = config.trunk.build_trunk(keys[0])
        self.heads = nnx.Dict(
            {name: ScalarHead(config.trunk.emb_dim, key=k) for name, k in zip(config.heads, keys[1:])}
        )

    def __call__(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        answer_offset: Float[Array, "batch length embed"] | None = None,
    ) -> dict[str, Float[Array, "batch states"]]:
        """Reads prompts and answers.

        Args:
            batch: a batch with one answer in each row.
            dropout_keys: one key for each row; None for no dropout.
            answer_offset: added to the embeddings of the answers' tokens.

        Returns:
            The outputs of each head, [batch, length + 1], in float32: `[:, :-1]` before each token, `[:, 1:]` after each.

        Raises:
            UserError: the rows are packed (which is only checked outside of `jit`).

        """
        offsets = None if answer_offset is None else jnp.pad(answer_offset, ((0, 0), (0, 1), (0, 0)))
        hidden = self.trunk.hidden(with_last_state(batch), dropout_keys, offsets)
        return {name: head(hidden) for name, head in self.heads.items()}


def with_last_state(batch: Batch) -> Batch:
    """The batch with one more place in each row, at which a model has read the whole answer."""

    def pad(x: Array) -> Array:
        return jnp.pad(jnp.asarray(x), ((0, 0), (0, 1)))

    segment_ids = jnp.asarray(batch.segment_ids)
    if not isinstance(batch.segment_ids, jax.core.Tracer) and (np.asarray(batch.segment_ids) > 1).any():
        raise UserError("models.Critic reads one answer a row: give it a batch that is not packed")
    # The state after the last token belongs to the answer, as those before its tokens do.
    longer = jnp.concatenate([segment_ids[:, :1], segment_ids], axis=1)
    return dataclasses.replace(
        batch,
        tokens=pad(batch.tokens),
        segment_ids=longer,
        positions=jnp.arange(longer.shape[1], dtype=jnp.int32)[None] * (longer > 0).astype(jnp.int32),
        weights=pad(batch.weights),
        discounts=pad(batch.discounts),
        td_weights=pad(batch.td_weights),
        rewards=None if batch.rewards is None else pad(batch.rewards),
    )


def critic_params(policy_params: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a critic that starts as a policy: a copy of its trunk, and new heads.

    Args:
        policy_params: the parameters of a language model, a nested dict; those that are not of the trunk are ignored.
        fresh: the initial parameters of a critic on that model's trunk.

    Returns:
        The critic's parameters, a nested dict; no array is shared with the policy, so that either may be donated.

    Raises:
        UserError: the policy lacks a parameter of the trunk, or has it in another shape.
    """

    def take(path: tuple, leaf: Any) -> Any:
        value: Any = policy_params
        for part in path:
            value = value.get(part.key) if isinstance(value, Mapping) else None
        if value is None or jnp.shape(value) != leaf.shape:
            has = "lacks it" if value is None else f"has {jnp.shape(value)}"
            name = "/".join(str(part.key) for part in path)
            raise UserError(
                f"a critic cannot start from these parameters: it needs {name} of shape {leaf.shape}, the policy {has}; "
                "give both the same model"
            )
        return jnp.copy(value)

    return {**fresh, "trunk": jax.tree_util.tree_map_with_path(take, fresh["trunk"])}


def offset_gradients(
    critic: Critic,
    batch: Batch,
    head: str,
    *,
    weights: Float[Array, "batch length"] | None = None,
    dropout_keys: Key[Array, " batch"] | None = None,
) -> Float[Array, "batch length embed"]:
    """The gradient of a head's outputs after the tokens of an answer by the embeddings of these tokens.

        d / d offset_t  sum_s weight_s * output_s(y + offset)   at offset = 0

    Args:
        critic: the network.
        batch: prompts and answers; not packed.
        head: the name of the head, such as the discriminator's.
        weights: the weights of the summed outputs, [batch, length]; None for 1 after every real token. For a score of whole
            answers, only the last token has weight 1.
        dropout_keys: one key for each row; None for no dropout.

    Returns:
        The gradients, [batch, length, embed], in float32; 0 at tokens that no summed output depends on.
    """
    summed = (jnp.asarray(batch.weights) > 0).astype(jnp.float32) if weights is None else jnp.asarray(weights)

    def total(offset: Float[Array, "batch length embed"]) -> Float[Array, ""]:
        return jnp.sum(summed * critic(batch, dropout_keys, offset)[head][:, 1:])

    return jax.grad(total)(jnp.zeros((*summed.shape, critic.config.trunk.emb_dim), summed.dtype))


def gradient_penalty(
    critic: Critic,
    batch: Batch,
    head: str,
    *,
    weights: Float[Array, "batch length"] | None = None,
    dropout_keys: Key[Array, " batch"] | None = None,
) -> Float[Array, " batch"]:
    """Zero-centred gradient penalty of each answer: keeps a discriminator smooth in the embeddings of the answer's tokens.

        penalty = sum_t |d / d offset_t  sum_s weight_s * output_s|^2

    Args: as in `offset_gradients`.

    Returns:
        The penalty of each row, [batch]; differentiable by the parameters.

    Source: R1, https://arxiv.org/abs/1801.04406.
    """
    gradients = offset_gradients(critic, batch, head, weights=weights, dropout_keys=dropout_keys)
    return jnp.sum(gradients**2, axis=(1, 2))

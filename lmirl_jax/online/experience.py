"""What a policy wrote: its answers as rows, and as a batch that is learnt from as demonstrations are."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lmirl_jax.decoding import EOS, real_tokens
from lmirl_jax.types import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experience:
    """Answers with their prompts, a row each, a prompt's answers together; padded with 0.

    `log_probs` are those of the policy that wrote them, in nats and at temperature 1; `demonstrations` the prompts' own
    targets and `rewards` what a reward function gave each token, where a learner asks for them. The arrays are [rows, ...],
    or [draws, rows, ...] in a replay buffer.
    """

    inputs: Any
    tokens: Any
    log_probs: Any
    demonstrations: Any = None
    rewards: Any = None


def as_batch(experience: Experience, discount: float) -> Batch:
    """The answers as a `Batch`: each is fed to a network token by token, as it was written.

    Args:
        experience: [rows, ...].
        discount: gamma.

    Returns:
        The batch. An answer without EOS was cut off: its last token has no reward, as a truncated demonstration's has none.
    """
    return _batch(experience.inputs, experience.tokens, real_tokens(experience.tokens), discount)


def demonstrations_batch(experience: Experience, discount: float) -> Batch:
    """The prompts' own targets as a `Batch`, a row for each answer."""
    targets = experience.demonstrations
    return _batch(experience.inputs, targets, targets > 0, discount)


def _batch(inputs: Any, tokens: Any, real: Bool[Array, "rows length"], discount: float) -> Batch:
    weights = real.astype(jnp.float32)
    fed = jnp.pad(tokens, ((0, 0), (1, 0)))[:, :-1]
    before_another = jnp.pad(weights[:, 1:], ((0, 0), (0, 1)))  # 0 at the last token of an answer
    has_reward = weights * jnp.maximum(before_another, tokens == EOS)
    return Batch(inputs, fed, tokens, weights, discount * before_another, has_reward)


def truncated(batch: Batch) -> Float[Array, " rows"]:
    """1 for answers that were cut off before EOS, else 0."""
    return jnp.any(batch.weights > batch.td_weights, axis=-1).astype(jnp.float32)


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both in one batch, padded to the longer one's lengths."""

    def put_together(a: Array, b: Array) -> Array:
        length = max(a.shape[1], b.shape[1])
        return jnp.concatenate([jnp.pad(x, ((0, 0), (0, length - x.shape[1]))) for x in (a, b)])

    return jax.tree.map(put_together, first, second)


def grouped(tree: Any, samples: int) -> Any:
    """[prompts * samples, ...] to [prompts, samples, ...]: a prompt's answers stay in one part of the batch."""
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, samples, *x.shape[1:])), tree)


def flat(tree: Any) -> Any:
    """The inverse of `grouped`."""
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), tree)

"""Rewards from a trained policy that learns no more: each token of an answer has the reward that its logits imply."""

import dataclasses
import functools
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lmirl_jax import sharding, soft_q
from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import NonNegative, Share, checked
from lmirl_jax.objectives import Shaping, extracted_rewards
from lmirl_jax.online.experience import Experience, as_batch
from lmirl_jax.online.rollouts import PromptData
from lmirl_jax.types import SoftQ


@runtime_checkable
class FrozenPolicy(Protocol):
    """A trained network with its gamma, as `runs.Policy` is; it lies on the mesh of the training."""

    graph: nnx.GraphDef
    params: Any
    discount: float


Network = Annotated[
    FrozenPolicy,
    Words("a trained network, as @reward/runs.load() makes of a checkpoint's path", lambda network: True),
]


@checked
@dataclasses.dataclass(frozen=True)
class FrozenReward:
    """The reward of every token, extracted from a checkpoint of IQLearn, of maximum likelihood, of any other.

        r_t = q_t - gamma v_{t+1}  [+ gamma v_{t+1} - v_t]  - beta * log pi_ref,t

    A token after which an answer was cut off has the reward 0, for the value of what would have followed is not known.
    At gamma 1 the rewards of a whole answer add up to v_0 + log pi(answer), less the correction: to compare answers to one
    prompt is then to compare their likelihoods. The network is no part of the train state nor of checkpoints.

    Args:
        policy: what rewards.
        shaping: None, or 'value': the potential-based part in brackets, after which the reward of a token is its log pi. A
            whole answer then loses what depends on its prompt alone, v_0 (where the learner has the same gamma), and one
            that was cut off has the value of where it stopped no longer taken off.
        discount: gamma; None: the one that `policy` was trained with.
        reference: a policy to correct by, such as the one before IQLearn; None without.
        beta: the weight of the correction.
    """

    policy: Network
    shaping: Shaping | None = None
    discount: Share | None = None
    reference: Network | None = None
    beta: NonNegative = 1.0

    takes_target = False

    def score(self, experience: Experience, prompts: PromptData, mesh: Mesh) -> Experience:
        """The draw with the reward of each token; every device reads the rows that it holds."""
        reference = None if self.reference is None else (self.reference.graph, self.reference.params)
        rewards = _rewards(
            (self.policy.graph, self.policy.params),
            reference,
            experience,
            discount=self.policy.discount if self.discount is None else self.discount,
            shaping=self.shaping,
            beta=self.beta,
            mesh=mesh,
        )
        return dataclasses.replace(experience, rewards=rewards)


@functools.partial(jax.jit, static_argnames=("discount", "shaping", "beta", "mesh"))
def _rewards(
    policy: Any,
    reference: Any,
    experience: Experience,
    *,
    discount: float,
    shaping: str | None,
    beta: float,
    mesh: Mesh,
) -> Float[Array, "rows length"]:
    answers = as_batch(experience, discount)

    def read(network: tuple[nnx.GraphDef, Any]) -> SoftQ:
        return soft_q.of_model(nnx.merge(*network), answers)

    other = None if reference is None else read(reference)
    rewards = extracted_rewards(read(policy), answers.discounts, shaping=shaping, reference=other, beta=beta)
    # Padding, and the last token of an answer that was cut off, have none.
    rewards = jnp.where(answers.td_weights > 0, rewards, 0.0)
    return jax.lax.with_sharding_constraint(rewards, sharding.batch_sharding(mesh))

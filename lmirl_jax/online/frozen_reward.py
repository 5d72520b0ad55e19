"""Rewards from a trained policy with frozen parameters: each token has the reward that the policy's logits imply."""

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
from lmirl_jax.arguments import NonNegative, Share, check_arguments
from lmirl_jax.models import reward_heads, reward_values
from lmirl_jax.objectives import Shaping, extracted_rewards
from lmirl_jax.online.experience import Experience, rollout_batch
from lmirl_jax.online.rollouts import PromptData
from lmirl_jax.training.sums import last_tokens
from lmirl_jax.types import SoftQ, UserError


@runtime_checkable
class FrozenPolicy(Protocol):
    """A trained network with its gamma, such as `runs.load` returns; its parameters are on the mesh of the training."""

    graph: nnx.GraphDef
    params: Any
    discount: float


Network = Annotated[
    FrozenPolicy,
    Words("a trained network, as @reward/runs.load() makes of a checkpoint's path", lambda network: True),
]


def is_reward_model(policy: Any) -> bool:
    return bool(reward_heads(getattr(policy, "model", None)))


@check_arguments
@dataclasses.dataclass(frozen=True)
class FrozenReward:
    """The reward of every token under a checkpoint, which any objective may have trained, or of whole answers by a reward model.

        r_t = q_t - gamma v_{t+1}  [+ gamma v_{t+1} - v_t]  - beta * log pi_ref,t

    That of a reward model (gin/runs/reward_model.gin) is the mean of its heads after the last token, and is paid there.

    The last token of a truncated answer has the reward 0, because the value of the state after it is not known.
    At gamma 1 the rewards of a whole answer add up to v_0 + log pi(answer) minus the correction. To compare answers to one
    prompt is then to compare their likelihoods. The network is not part of the train state or of checkpoints.

    Args:
        policy: the network whose rewards are read.
        shaping: None, or 'value': adds the part in brackets, after which the reward of a token is its log pi. The return of
            a whole answer then lacks v_0, which depends on its prompt alone (where the learner has the same gamma), and the
            value of the state at which a truncated answer stopped is no longer subtracted.
        discount: gamma; None for the one that `policy` was trained with.
        reference: the policy of the correction, such as the one before IQLearn; None for no correction.
        beta: the weight of the correction.
    """

    policy: Network
    shaping: Shaping | None = None
    discount: Share | None = None
    reference: Network | None = None
    beta: NonNegative = 1.0

    takes_reference = False

    def __post_init__(self):
        if is_reward_model(self.policy) and (self.shaping is not None or self.reference is not None):
            raise UserError(
                "SHAPING and REFERENCE_PATH are of rewards that a policy implies, and REWARD_CHECKPOINT_PATH is a reward model: "
                "leave them out"
            )

    def score(self, experience: Experience, prompts: PromptData, mesh: Mesh) -> Experience:
        """Adds the reward of each token to a draw; every device computes the rewards of its rows."""
        reference = None if self.reference is None else (self.reference.graph, self.reference.params)
        rewards = _rewards(
            (self.policy.graph, self.policy.params),
            reference,
            experience,
            discount=self.policy.discount if self.discount is None else self.discount,
            shaping=self.shaping,
            beta=self.beta,
            mesh=mesh,
            of_answers=is_reward_model(self.policy),
        )
        return dataclasses.replace(experience, rewards=rewards)


@functools.partial(jax.jit, static_argnames=("discount", "shaping", "beta", "mesh", "of_answers"))
def _rewards(
    policy: Any,
    reference: Any,
    experience: Experience,
    *,
    discount: float,
    shaping: Shaping | None,
    beta: float,
    mesh: Mesh,
    of_answers: bool,
) -> Float[Array, "rows length"]:
    answers = rollout_batch(experience, discount)
    if of_answers:
        values = jnp.mean(reward_values(nnx.merge(*policy), answers)[..., 1:], axis=0)
        return jax.lax.with_sharding_constraint(last_tokens(answers) * values, sharding.batch_sharding(mesh))

    def read(network: tuple[nnx.GraphDef, Any]) -> SoftQ:
        return soft_q.from_model(nnx.merge(*network), answers)

    reference_out = None if reference is None else read(reference)
    rewards = extracted_rewards(
        read(policy), answers.discounts, shaping=shaping, reference=reference_out, beta=beta
    )
    # Padding, and the last token of a truncated answer, have no reward.
    rewards = jnp.where(answers.td_weights > 0, rewards, 0.0)
    return jax.lax.with_sharding_constraint(rewards, sharding.batch_sharding(mesh))

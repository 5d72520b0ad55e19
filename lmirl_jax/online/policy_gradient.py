"""Policy gradients: one learner for every reward and every estimator of advantages.

PPO is `gae` with a reward function, REINFORCE with a leave-one-out baseline `leave_one_out` without clipping, GRPO
`group_relative`; GAIL is `gae` with an `Adversary`, GAD `group_relative` with a `PairwiseAdversary`. A `FrozenReward` goes
with any.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

import lmirl_jax.online.replay as replay
from lmirl_jax import sharding
from lmirl_jax.arguments import check_arguments
from lmirl_jax.models.trainable import frozen
from lmirl_jax.online.adversary import HEAD, Adversary, PairwiseAdversary
from lmirl_jax.online.alarm import Collapse
from lmirl_jax.online.networks import make_networks
from lmirl_jax.online.policy_gradient_step import policy_gradient_step
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.online.reward_sources import RewardSource
from lmirl_jax.online.rollouts import Rollouts, Sampler
from lmirl_jax.training import Setting, TrainState, Updates
from lmirl_jax.training.learner import (
    check_demonstrations,
    check_no_labels,
    jit_update,
    warn_of_unused_rewards,
)
from lmirl_jax.types import UserError


@check_arguments
@dataclasses.dataclass(frozen=True)
class PolicyGradient:
    """A learner that raises the probability of rollouts with a high reward.

    Each update uses the whole newest draw of rollouts, so that a draw serves for `sample_every` updates.

    Args:
        rollouts: the settings of sampling.
        reward: a `RewardFunction` of texts, a `FrozenReward` of a checkpoint, or a discriminator that learns to tell
            rollouts from demonstrations: `Adversary`, `PairwiseAdversary`.
        loss: the loss of the policy.
        optimizer: the optimizer of the networks beside the policy: the value network of `objectives.gae`, and the discriminator.
        share_trunk: whether value and discriminator are heads of one network.
    """

    rollouts: Rollouts
    reward: RewardSource | Adversary | PairwiseAdversary
    loss: Loss
    optimizer: optax.GradientTransformation | None = None
    share_trunk: bool = False

    def __post_init__(self):
        rollouts, loss = self.rollouts, self.loss
        if rollouts.draws > 1:
            raise UserError(
                f"REPLAY_SIZE={rollouts.replay_size}: a policy gradient learns from its last draw alone; set REPLAY_SIZE to "
                "None, and SAMPLE_EVERY to the updates that are made from a draw"
            )
        if rollouts.temperature != 1:
            raise UserError(
                f"SAMPLE_TEMPERATURE={rollouts.temperature}: a policy gradient is of the policy as it is; set it to 1.0"
            )
        if not loss.needs_values and rollouts.samples_per_prompt < 2:
            name = getattr(loss.advantages, "__name__", repr(loss.advantages))
            raise UserError(
                f"SAMPLES_PER_PROMPT={rollouts.samples_per_prompt}: ADVANTAGES=@objectives.{name} compares the answers to a "
                "prompt with one another; set it to 2 or more, or ADVANTAGES=@objectives.gae"
            )
        if self.heads and self.optimizer is None:
            raise UserError(
                f"PolicyGradient.optimizer is None: the {' and the '.join(self.heads)} learn with one"
            )

    @property
    def adversary(self) -> Adversary | PairwiseAdversary | None:
        return None if isinstance(self.reward, RewardSource) else self.reward

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads that learn beside the policy."""
        needed = {"value": self.loss.needs_values, HEAD: self.adversary is not None}
        return tuple(name for name, is_needed in needed.items() if is_needed)

    def start(self, setting: Setting) -> Updates:
        sharding.check_batch_size(
            setting.mesh,
            self.rollouts.prompts.batch_size,
            setting.microbatches,
            name="SAMPLE_BATCH_SIZE / SAMPLES_PER_PROMPT",
        )
        if setting.packed and self.adversary is not None and not self.adversary.in_pairs:
            raise UserError(
                "PACK=True: the discriminator of @online.Adversary() reads one demonstration a row; set it to False"
            )
        check_demonstrations(setting, "LEARNER=@online.PolicyGradient()")
        check_no_labels(setting, "LEARNER=@online.PolicyGradient()")
        warn_of_unused_rewards(setting, "LEARNER=@online.PolicyGradient()")
        networks = {}
        if self.optimizer is not None:
            networks = make_networks(setting, self.optimizer, self.heads, self.share_trunk)
        answers = self.rollouts.shapes(
            demonstrations=self._with_demonstrations, rewards=self.adversary is None
        )

        shapes, shardings = setting.policy_state
        # With adapters, the first policy is the base without them, which never changes.
        copies_reference = self.loss.needs_reference and not frozen(shapes.params)

        def extra(params: Any, key: Key[Array, ""]) -> dict[str, Any]:
            state: dict[str, Any] = {"replay": replay.make_empty(1, answers)}
            if copies_reference:
                state["reference"] = jax.tree.map(jnp.copy, params)
            for number, (name, network) in enumerate(networks.items()):
                state[name] = network.first_state(params, jax.random.fold_in(key, number))
            return state

        extra_shapes = jax.eval_shape(extra, shapes.params, setting.key)
        extra_shardings: dict[str, Any] = {"replay": replay.shardings(setting.mesh, extra_shapes["replay"])}
        if copies_reference:
            extra_shardings["reference"] = shardings.params
        extra_shardings |= {name: network.shardings()[1] for name, network in networks.items()}
        shapes = dataclasses.replace(shapes, extra=extra_shapes)
        shardings = dataclasses.replace(shardings, extra=extra_shardings)
        return self._updates(setting, networks, shapes, shardings, extra)

    @property
    def _with_demonstrations(self) -> bool:
        if isinstance(self.reward, RewardSource):
            return self.reward.takes_reference
        return self.reward.in_pairs

    def _updates(
        self, setting: Setting, networks: Any, shapes: TrainState, shardings: TrainState, extra: Any
    ) -> Updates:
        score = {}
        if isinstance(self.reward, RewardSource):
            score["finish"] = functools.partial(
                self.reward.score, prompts=self.rollouts.prompts, mesh=setting.mesh
            )
        sampler = Sampler(self.rollouts, setting, demonstrations=self._with_demonstrations, **score)
        step = functools.partial(
            policy_gradient_step,
            setting=setting,
            rollouts=self.rollouts,
            loss=self.loss,
            adversary=self.adversary,
            networks=networks,
        )

        def describe(shape: tuple[int, int]) -> str:
            rows = self.rollouts.rows + (shape[0] if self.loss.mle_weight else 0)
            beside = f"; beside the policy: {', '.join(networks)}" if networks else ""
            form = setting.soft_q_form((rows, shape[1]), self.loss.soft_q_config)
            return f"{self.rollouts.describe()}{beside}; soft Q-values: {form}"

        return Updates(
            shapes,
            shardings,
            step=jit_update(step, setting, shardings),
            describe=describe,
            draws_before=sampler.draws_before,
            draw=sampler.draw,
            extra=extra,
            prompts=sampler.prompts,
            alarm=Collapse(),
            from_scratch="rollouts of random parameters teach nothing: start from a run of gin/objectives/mle.gin",
        )

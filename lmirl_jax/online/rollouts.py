"""Samples rollouts during training, on the mesh of the training and with its parameters."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, Key

import lmirl_jax.online.replay as replay
from lmirl_jax import decoding, sharding
from lmirl_jax.arguments import Count, Positive, Share, Whole, check_arguments
from lmirl_jax.online.experience import Experience
from lmirl_jax.rows import answers_of, prompts_of
from lmirl_jax.training import Setting, TrainState
from lmirl_jax.training.microbatches import flatten_groups
from lmirl_jax.types import AnswerBatch, Batch, PromptBatch, TrainData, UserError


@runtime_checkable
class PromptData(TrainData, Protocol):
    """A training set whose prompts the policy answers, `batch_size` at a time, such as `data.TrainDataset`.

    Args:
        lengths: the greatest lengths of a row, for `inputs` and `targets`.
        buckets: the greatest number of shapes of its batches; 1 where all have these lengths.
    """

    lengths: Mapping[str, int]
    buckets: int

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        ...


@check_arguments
def num_prompts(sample_batch_size: Count, samples_per_prompt: Count = 1) -> int:
    """The number of prompts for this number of rollouts."""
    if sample_batch_size % samples_per_prompt:
        raise UserError(
            f"SAMPLE_BATCH_SIZE={sample_batch_size} is no multiple of SAMPLES_PER_PROMPT={samples_per_prompt}: each prompt "
            "is answered equally often"
        )
    return sample_batch_size // samples_per_prompt


@check_arguments
@dataclasses.dataclass(frozen=True)
class Rollouts:
    """The settings of sampling: when and how rollouts are sampled, and how long they stay in the replay buffer.

    Args:
        prompts: a training set; sampling does not read its answers.
        samples_per_prompt: the number of rollouts of each prompt.
        sample_every: the number of updates from one draw of rollouts to the next.
        replay_size: the number of rollouts in the buffer, from which an update samples as many as a draw has; None for one draw.
        max_age: the number of updates after which a rollout is no longer used; None for no limit while it is in the buffer.
        temperature: the sampling temperature.
        discount: gamma, between the tokens of an answer.
    """

    prompts: PromptData
    samples_per_prompt: Count = 1
    sample_every: Count = 1
    replay_size: Count | None = None
    max_age: Whole | None = None
    temperature: Positive = 1.0
    discount: Share = 1.0

    def __post_init__(self):
        if self.prompts.packed:
            raise UserError(
                "online.Rollouts.prompts are packed, and the policy answers one prompt a row: leave `pack` of their data set "
                "False (prompts/data.TrainDataset.pack = False)"
            )
        if self.prompts.buckets > 1:
            raise UserError(
                "online.Rollouts.prompts are bucketed, and a replay buffer has rollouts of one shape: leave `buckets` of their "
                "data set 1 (prompts/data.TrainDataset.buckets = 1)"
            )
        size = self.rows if self.replay_size is None else self.replay_size
        if size % self.rows:
            raise UserError(
                f"REPLAY_SIZE={size!r} must be a multiple of the {self.rows} answers of a draw (SAMPLE_BATCH_SIZE), or None"
            )
        age = self.max_age
        if age is not None and age < self.sample_every - 1:
            raise UserError(
                f"REPLAY_MAX_AGE={age!r} leaves no answers to learn from before the next draw: it must be a whole number of at "
                f"least SAMPLE_EVERY - 1 = {self.sample_every - 1}, or None"
            )

    @property
    def rows(self) -> int:
        """The number of rollouts of a draw."""
        return self.prompts.batch_size * self.samples_per_prompt

    @property
    def draws(self) -> int:
        """The number of draws in the buffer."""
        return 1 if self.replay_size is None else self.replay_size // self.rows

    def shapes(self, *, demonstrations: bool = False, rewards: bool = False) -> Experience:
        """The shapes of a draw, optionally with the prompts' demonstrations and with rewards."""
        inputs, length = self.prompts.lengths["inputs"], self.prompts.lengths["targets"]
        counts = jax.ShapeDtypeStruct((self.rows,), jnp.int32)
        terminal = jax.ShapeDtypeStruct((self.rows,), jnp.bool_)
        tokens = jax.ShapeDtypeStruct((self.rows, length), jnp.int32)
        numbers = jax.ShapeDtypeStruct(tokens.shape, jnp.float32)
        answers = AnswerBatch(tokens, counts, terminal)
        return Experience(
            PromptBatch(jax.ShapeDtypeStruct((self.rows, inputs), jnp.int32), counts),
            answers,
            numbers,
            answers if demonstrations else None,
            numbers if rewards else None,
        )

    def describe(self) -> str:
        every = "every update" if self.sample_every == 1 else f"every {self.sample_every} updates"
        return f"samples: {self.rows} answers {every}, the last {self.rows * self.draws} kept"

    def check(self, setting: Setting) -> None:
        """Raises a UserError where the mesh or the microbatches do not divide a draw."""
        name = (
            "SAMPLE_BATCH_SIZE / SAMPLES_PER_PROMPT" if self.samples_per_prompt > 1 else "SAMPLE_BATCH_SIZE"
        )
        sharding.check_batch_size(setting.mesh, self.prompts.batch_size, name=name)
        sharding.check_batch_size(setting.mesh, self.rows, setting.microbatches, name="SAMPLE_BATCH_SIZE")


class Sampler:
    """Samples rollouts into `TrainState.extra["replay"]`.

    Args:
        rollouts: the settings of sampling.
        setting: the settings of the run.
        demonstrations: whether a draw also holds the prompts' demonstrations.
        finish: completes a new draw on the host, for example with rewards.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        setting: Setting,
        demonstrations: bool = False,
        finish: Callable[[Experience], Experience] = lambda experience: experience,
    ):
        rollouts.check(setting)
        self._rollouts, self._mesh, self._finish = rollouts, setting.mesh, finish
        self.prompts = rollouts.prompts.iterator(
            sharding.local_rows(setting.mesh, rollouts.prompts.batch_size)
        )
        answer = functools.partial(
            sample_rollouts,
            graph=setting.graph,
            key=jax.random.fold_in(setting.key, 3),
            rollouts=rollouts,
            demonstrations=demonstrations,
        )
        self._answer = jax.jit(answer, out_shardings=sharding.batch_sharding(setting.mesh))
        self._put = jax.jit(replay.put, donate_argnums=0)

    def draws_before(self, number: int) -> bool:
        """Whether rollouts are drawn before an update, given its number (1 for the first)."""
        return (number - 1) % self._rollouts.sample_every == 0

    def draw(self, state: TrainState) -> TrainState:
        """Returns the state with new rollouts in its buffer; the memory of the old buffer is reused."""
        batch = sharding.to_global(self._mesh, next(self.prompts), self._rollouts.prompts.batch_size)
        experience = self._finish(self._answer(state.params, batch, state.step))
        buffer = self._put(state.extra["replay"], experience, state.step)
        return dataclasses.replace(state, extra={**state.extra, "replay": buffer})


def sample_rollouts(
    params: Any,
    batch: Batch,
    step: Int[Array, ""],
    *,
    graph: nnx.GraphDef,
    key: Key[Array, ""],
    rollouts: Rollouts,
    demonstrations: bool = False,
) -> Experience:
    """Samples the policy on the prompts of a batch.

    Args:
        params: the parameters of the policy.
        batch: demonstrations, [prompts, ...]; rollouts are at most as long as its rows.
        step: the number of updates so far; it, the prompt's row and the sample's number determine the random key.
        graph: the policy's network without its arrays.
        key: the key for sampling in this run.
        rollouts: the settings of sampling.
        demonstrations: whether the draw also holds the prompts' demonstrations.

    Returns:
        The draw, [prompts * samples_per_prompt, ...].
    """
    count, length = batch.tokens.shape
    keys = decoding.sample_keys(jax.random.fold_in(key, step), jnp.arange(count), rollouts.samples_per_prompt)
    prompts, model = prompts_of(batch), nnx.merge(graph, params)
    eos_ids = rollouts.prompts.eos_ids
    out = decoding.sample(model, prompts, keys, rollouts.temperature, max_length=length, eos_ids=eos_ids)
    answers, log_probs = flatten_groups((out.answers, out.log_probs))
    by_prompt = prompts, answers_of(batch) if demonstrations else None
    prompts, targets = jax.tree.map(lambda x: jnp.repeat(x, rollouts.samples_per_prompt, axis=0), by_prompt)
    return Experience(prompts, answers, log_probs, targets)

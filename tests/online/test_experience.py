"""Rollouts as a batch: which tokens count, which have a reward, what each leads to."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from lmirl_jax.online.experience import demonstration_batch, rollout_batch, truncated_rows
from lmirl_jax.rows import answers_of, concatenate, prompts_of
from lmirl_jax.types import AnswerBatch
from tests.batches import rollout_batch_of, rollouts_of
from tests.training.fakes import make_batch

INPUTS = np.array([[7, 1, 0]] * 3)
# Two whole answers, and between them a truncated one in which token 0 was sampled.
ANSWERS = AnswerBatch(
    jnp.array([[5, 6, 1, 0], [5, 0, 6, 7], [1, 0, 0, 0]]),
    jnp.array([3, 4, 1]),
    jnp.array([True, False, True]),
)


def test_literals():
    rollouts = dataclasses.replace(rollouts_of(INPUTS, ANSWERS.tokens), answers=ANSWERS)
    batch = rollout_batch(rollouts, 0.5)
    np.testing.assert_array_equal(batch.weights, [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.positions, [[0, 1, 2, 0], [0, 1, 2, 3], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.discounts, [[0.5, 0.5, 0, 0], [0.5, 0.5, 0.5, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.td_weights, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(truncated_rows(batch), [0, 1, 0])


def test_demonstrations_are_what_the_data_made_of_them():
    data = make_batch(0, 9)
    experience = dataclasses.replace(
        rollouts_of(data.prompt_tokens, data.tokens),
        prompts=prompts_of(data),
        demonstrations=answers_of(data),
    )
    batch = demonstration_batch(experience, 1.0)
    for field in dataclasses.fields(batch):
        ours, theirs = getattr(batch, field.name), getattr(data, field.name)
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


def test_concatenate_pads_to_the_longer():
    short = rollout_batch_of(INPUTS[:1], ANSWERS.tokens[:1, :3])
    long = rollout_batch_of(INPUTS[:1], ANSWERS.tokens[1:2])
    both = concatenate(short, long)
    np.testing.assert_array_equal(both.tokens, [[5, 6, 1, 0], [5, 0, 6, 7]])
    np.testing.assert_array_equal(both.weights, [[1, 1, 1, 0], [1, 1, 1, 1]])

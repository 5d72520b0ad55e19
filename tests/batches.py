"""Batches for tests, written as lists of tokens that end with EOS 1 or are filled up with 0."""

import jax.numpy as jnp
import numpy as np

from lmirl_jax.online.experience import Experience, rollout_batch
from lmirl_jax.rows import answer_rows
from lmirl_jax.types import AnswerBatch, Batch, PromptBatch

EOS = 1


def prompt_batch(tokens) -> PromptBatch:
    """Prompts of the tokens before the zeros at the end of each row."""
    tokens = np.asarray(tokens, np.int32)
    lengths = [len(np.trim_zeros(row, "b")) for row in tokens]
    return PromptBatch(jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32))


def answer_batch(tokens) -> AnswerBatch:
    """Answers up to the first EOS of each row; a row without one is truncated, and ends before the zeros at its end."""
    tokens = np.asarray(tokens, np.int32)
    terminal = (tokens == EOS).any(axis=-1)
    lengths = [
        int(np.argmax(row == EOS)) + 1 if ends else len(np.trim_zeros(row, "b"))
        for row, ends in zip(tokens, terminal, strict=True)
    ]
    return AnswerBatch(jnp.asarray(tokens), jnp.asarray(lengths, jnp.int32), jnp.asarray(terminal))


def batch_of(inputs, targets, discount: float = 1.0) -> Batch:
    return answer_rows(prompt_batch(inputs), answer_batch(targets), discount)


def rollouts_of(inputs, tokens) -> Experience:
    answers = answer_batch(tokens)
    return Experience(prompt_batch(inputs), answers, jnp.zeros(answers.tokens.shape))


def rollout_batch_of(inputs, tokens, discount: float = 1.0) -> Batch:
    return rollout_batch(rollouts_of(inputs, tokens), discount)

"""Rewards for the trainers of other libraries: a plain function from prompts and completions to numbers."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lmirl_jax import runs
from lmirl_jax.arguments import Count, Path, Share, check_arguments
from lmirl_jax.rewards.score_arrays import score
from lmirl_jax.types import UserError

RewardFunction = Callable[..., list[float]]

# The smallest number of tokens in a row; it is doubled until the longest text has room.
SHORTEST = 32


@check_arguments
def reward_function(
    path: Path | os.PathLike[str],
    *,
    discount: Share | None = None,
    batch_size: Count = 8,
    normalised: bool = False,
    vocabulary_path: Path | None = None,
    mesh: Mesh | None = None,
) -> RewardFunction:
    """Makes the function that a trainer such as TRL's `GRPOTrainer` takes among its `reward_funcs`.

        reward(prompt, completion) = sum_t gamma^t r_t

    Args:
        path: the checkpoint that rewards, as `checkpoints.find_checkpoint` finds it.
        discount: gamma; None for that of the checkpoint's training.
        batch_size: the number of rows that are scored at a time.
        normalised: whether a completion's return is divided by the number of its tokens.
        vocabulary_path: the vocabulary of a checkpoint that comes without one; see `data.vocabulary`.
        mesh: the devices; None for all of them.

    Returns:
        `(prompts, completions, **columns) -> list of floats`. Both are lists of texts, or of conversations of one message. An
        end of the sequence is added behind each completion. Other arguments, which TRL gives, are ignored.

    Raises:
        UserError: there is no such checkpoint.
    """
    policy = runs.load(path, mesh, vocabulary_path=vocabulary_path)

    def lmirl_reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        texts, answers = (list(map(_text, part)) for part in (prompts, completions))
        lengths = _lengths(policy.task, texts, answers)
        scores = score(policy, texts, answers, discount=discount, batch_size=batch_size, lengths=lengths)
        return [float(value) for value in (scores.normalised_return if normalised else scores.total)]

    return lmirl_reward


def _text(given: Any) -> str:
    """A text, also where it is the content of a conversation's only message."""
    if isinstance(given, str):
        return given
    if isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], Mapping):
        content = given[0].get("content")
        if isinstance(content, str):
            return content
    raise UserError(
        f"a reward function reads texts, or conversations of one message with text, not {str(given)[:60]!r}: write longer "
        "conversations as one text first"
    )


def _lengths(task: Any, prompts: Sequence[str], completions: Sequence[str]) -> dict[str, int]:
    """Room for the longest texts, in few sizes, each of which is compiled once."""
    longest = {
        "inputs": max((len(task.input_vocabulary.encode_prompt(text)) for text in prompts), default=1),
        "targets": max((len(task.output_vocabulary.encode(text)) + 1 for text in completions), default=1),
    }
    return {
        name: SHORTEST * 2 ** int(np.ceil(np.log2(max(size / SHORTEST, 1)))) for name, size in longest.items()
    }

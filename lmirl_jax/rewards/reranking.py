"""Which of a prompt's samples to prefer: by the return under a checkpoint, by it over the length, by log-likelihood."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lmirl_jax.evaluation import Answers
from lmirl_jax.evaluation.evaluator import LOG_LIKELIHOOD
from lmirl_jax.evaluation.generation import Prompts
from lmirl_jax.rewards.scoring import Scorer

SCORES = ("return", "normalised_return", LOG_LIKELIHOOD)


class Reranker:
    """Gives each sample the scores of SCORES, in nats; which is the best of a prompt is `Answers.best`.

    `return` and `normalised_return` are as in `Scored`, under the scorer's checkpoint; `log_likelihood` is that of the policy
    that wrote the sample. At gamma 1, without a correction, a checkpoint's returns put a prompt's whole samples in the order of
    its own log-likelihoods: they differ by the prompt's value alone. A sample that was cut off lacks its last token's
    reward, so the value of where it stopped is taken off its return: take that with care.

    Args:
        scorer: with the checkpoint that rewards; its lengths must hold the samples.
    """

    def __init__(self, scorer: Scorer):
        self._scorer = scorer

    def __call__(self, prompts: Prompts, answers: Iterable[Answers], skip: int = 0) -> Iterator[Answers]:
        """Scores answers as they come, in order.

        Args:
            prompts: the data set that is answered.
            answers: to its prompts from number `skip` on.
            skip: prompts before the first of the answers.
        """
        waiting: collections.deque[Answers] = collections.deque()
        pairs = _pairs(
            itertools.islice(_inputs(prompts, self._scorer.batch_size), skip, None), answers, waiting
        )
        scored = self._scorer(pairs)
        for first in scored:
            answer = waiting.popleft()
            of_samples = [first, *itertools.islice(scored, len(answer.tokens) - 1)]
            found = {
                "return": tuple(one.total for one in of_samples),
                "normalised_return": tuple(one.normalised_return for one in of_samples),
                LOG_LIKELIHOOD: tuple(float(np.sum(values)) for values in answer.log_probs),
            }
            yield dataclasses.replace(answer, scores=found)


@dataclasses.dataclass
class _Sample:
    """A sample as a pair to score: the tokens that were sampled, which encoding its text again might not give back."""

    input_tokens: Any
    target_tokens: Any
    example: int
    candidate: int
    candidates: int
    inputs: str = ""
    targets: str = ""
    reference: str | None = None
    id: str | None = None
    offsets: tuple[tuple[int, int], ...] = ()


def _inputs(prompts: Prompts, batch_size: int) -> Iterator[np.ndarray]:
    """The tokens of each prompt, as the policy read them."""
    for batch, examples in prompts.batches(batch_size):
        for row in np.asarray(batch.encoder_input_tokens)[: len(examples)]:
            yield np.trim_zeros(row, "b")


def _pairs(
    inputs: Iterable[np.ndarray], answers: Iterable[Answers], waiting: collections.deque[Answers]
) -> Iterator[_Sample]:
    """Each sample of each answer; the answers on their way to the scores are in `waiting`."""
    for number, (prompt, answer) in enumerate(zip(inputs, answers, strict=False)):
        waiting.append(answer)
        for candidate, tokens in enumerate(answer.tokens):
            yield _Sample(prompt, np.asarray(tokens, np.int32), number, candidate, len(answer.tokens))

"""Scores the samples of a prompt by return, by return over length, and by log-likelihood, to choose the best one."""

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
from lmirl_jax.rows import prompts_of

SCORES = ("return", "normalised_return", LOG_LIKELIHOOD)


class Reranker:
    """Gives each sample the scores of SCORES, in nats; `Answers.best` tells which sample of a prompt is the best by each.

    `return` and `normalised_return` are those of `ScoredAnswer`, under the checkpoint of the scorer; `log_likelihood` is that of
    the policy that generated the sample. At gamma 1, without a correction, the returns of a checkpoint rank the complete samples
    of a prompt as its log-likelihoods do: they differ only by the value of the prompt. A truncated sample lacks the reward of its
    last token, so that its return is reduced by the value of the state in which it stopped: use it with care.

    Args:
        scorer: the scorer with the checkpoint that rewards; its lengths must hold the samples.
    """

    def __init__(self, scorer: Scorer):
        self._scorer = scorer

    def __call__(self, prompts: Prompts, answers: Iterable[Answers], skip: int = 0) -> Iterator[Answers]:
        """Scores answers as they come, in order.

        Args:
            prompts: the data set that is answered.
            answers: the answers to its prompts from number `skip` on.
            skip: the number of prompts before the first answer.
        """
        waiting: collections.deque[Answers] = collections.deque()
        pairs = _pairs(
            itertools.islice(_inputs(prompts, self._scorer.batch_size), skip, None), answers, waiting
        )
        results = self._scorer(pairs)
        for first in results:
            answer = waiting.popleft()
            samples = [first, *itertools.islice(results, len(answer.tokens) - 1)]
            scores = {
                "return": tuple(one.total for one in samples),
                "normalised_return": tuple(one.normalised_return for one in samples),
                LOG_LIKELIHOOD: tuple(float(np.sum(values)) for values in answer.log_probs),
            }
            yield dataclasses.replace(answer, scores=scores)


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
    references: tuple[str, ...] = ()
    id: str | None = None
    offsets: tuple[tuple[int, int], ...] = ()
    messages: Any = None


def _inputs(prompts: Prompts, batch_size: int) -> Iterator[np.ndarray]:
    """The tokens of each prompt, as the policy reads them."""
    for batch, examples in prompts.batches(batch_size):
        prompts_read = prompts_of(batch)
        lengths = np.asarray(prompts_read.lengths)[: len(examples)]
        for tokens, length in zip(np.asarray(prompts_read.tokens), lengths, strict=False):
            yield tokens[:length]


def _pairs(
    inputs: Iterable[np.ndarray], answers: Iterable[Answers], waiting: collections.deque[Answers]
) -> Iterator[_Sample]:
    """Yields each sample of each answer, and appends the answers that wait for their scores to `waiting`."""
    for number, (prompt, answer) in enumerate(zip(inputs, answers, strict=False)):
        waiting.append(answer)
        for candidate, tokens in enumerate(answer.tokens):
            yield _Sample(prompt, np.asarray(tokens, np.int32), number, candidate, len(answer.tokens))

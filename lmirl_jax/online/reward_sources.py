"""Rewards of a policy gradient that nothing learns, such as a function of prompt and answer."""

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh

from lmirl_jax import sharding
from lmirl_jax.arguments import check_arguments
from lmirl_jax.online.experience import Experience
from lmirl_jax.online.rollouts import PromptData
from lmirl_jax.types import AnswerBatch, PromptBatch, UserError


@runtime_checkable
class TextData(PromptData, Protocol):
    """Prompts whose tokens can be read, as `data.TrainDataset` is."""

    def decode_inputs(self, tokens: Sequence[int]) -> str: ...

    def decode(self, tokens: Sequence[int]) -> str: ...

    def decode_against(self, tokens: Sequence[int], reference: str) -> str:
        """The text of an answer that is compared with a reference."""
        ...


@runtime_checkable
class RewardSource(Protocol):
    """Rewards the rollouts of each draw, and does not learn: `RewardFunction`, `FrozenReward`."""

    @property
    def takes_reference(self) -> bool:
        """Whether it needs the demonstrations of the prompts."""
        ...

    def score(self, experience: Experience, prompts: Any, mesh: Mesh) -> Experience:
        """Adds the reward of each token to a draw."""
        ...


@check_arguments
@dataclasses.dataclass(frozen=True)
class RewardFunction:
    """A reward of whole answers, or of each of their tokens, computed on the host.

    Args:
        function: `(prompt, answer) -> reward`, of texts; a number is the reward of the answer's last token, an array has a
            number for each of its tokens (EOS included). It may name two more arguments: `reference`, the text of the
            prompt's demonstration, and `tokens`, those of the answer. So a metric of METRICS can be a reward.
    """

    function: Callable[..., Any]

    def __post_init__(self):
        try:
            inspect.signature(self.function).bind("", "", **self._optional_arguments(reference="", tokens=[]))
        except TypeError as error:
            raise UserError(
                f"REWARD_FUNCTION={self.name} cannot be called with a prompt and an answer ({error}): give it these two "
                "arguments, and if it wants them `reference` and `tokens`"
            ) from None

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    @property
    def takes_reference(self) -> bool:
        return bool(self._optional_arguments(reference=""))

    def score(self, experience: Experience, prompts: TextData, mesh: Mesh) -> Experience:
        """Adds the reward of each token to a draw; every process scores the rows that its devices hold."""
        prompt_tokens, answer_tokens = _local_tokens(experience.prompts), _local_tokens(experience.answers)
        shown = _local_tokens(experience.demonstrations) if experience.demonstrations else answer_tokens
        size = experience.answers.tokens.shape
        rewards = np.zeros((len(answer_tokens), size[1]), np.float32)
        for row, (inputs, tokens, shown_tokens) in enumerate(zip(prompt_tokens, answer_tokens, shown)):
            prompt, reference = prompts.decode_inputs(inputs), prompts.decode(shown_tokens)
            text = (
                prompts.decode_against(tokens, reference) if self.takes_reference else prompts.decode(tokens)
            )
            arguments = self._optional_arguments(reference=reference, tokens=tokens)
            texts = (prompt, text)
            rewards[row, : len(tokens)] = self._as_token_rewards(
                self._call(texts, arguments), len(tokens), texts
            )
        placed = sharding.rows_to_global(mesh, rewards, size[0])
        return dataclasses.replace(experience, rewards=placed)

    def _optional_arguments(self, **offered: Any) -> dict[str, Any]:
        named = inspect.signature(self.function).parameters
        return {name: value for name, value in offered.items() if name in named}

    def _call(self, texts: tuple[str, str], arguments: dict[str, Any]) -> Any:
        try:
            return self.function(*texts, **arguments)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise UserError(
                f"REWARD_FUNCTION={self.name} raised {what} ({frame.filename}, line {frame.lineno}) for the answer "
                f"{texts[1]!r} to {texts[0]!r}: give a number for every text"
            ) from error

    def _as_token_rewards(self, reward: Any, length: int, texts: tuple[str, str]) -> np.ndarray:
        """The rewards as one number for each token; raises a UserError for what is none."""
        gave = f"REWARD_FUNCTION={self.name} gave {reward!r} for the answer {texts[1]!r} to {texts[0]!r}"
        try:
            values = np.asarray(reward).astype(np.float32, casting="same_kind")
        except (TypeError, ValueError):
            raise UserError(f"{gave}: return a number, or one for each token") from None
        if not np.isfinite(values).all():
            raise UserError(f"{gave}: return finite numbers")
        if values.ndim == 0:
            return np.concatenate([np.zeros(length - 1, np.float32), values[None]])
        if values.shape != (length,):
            raise UserError(
                f"REWARD_FUNCTION={self.name} gave {values.shape} for the {length} tokens of {texts[1]!r}: return one "
                "number, or one for each token"
            )
        return values


def _local_tokens(rows: PromptBatch | AnswerBatch) -> list[list[int]]:
    """The tokens of each row that this process's devices hold, without padding."""
    tokens, lengths = sharding.local_part(rows.tokens), sharding.local_part(rows.lengths)
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]

"""Where the reward of a policy gradient comes from, if not from a discriminator: any function of prompt and answer."""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.sharding import Mesh

from lmirl_jax import sharding
from lmirl_jax.decoding import real_tokens
from lmirl_jax.online.experience import Experience
from lmirl_jax.online.rollouts import PromptData
from lmirl_jax.types import UserError


@runtime_checkable
class TextData(PromptData, Protocol):
    """Prompts whose tokens can be read, as `data.TrainDataset` is."""

    def decode_inputs(self, tokens: Sequence[int]) -> str: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclasses.dataclass(frozen=True)
class RewardFunction:
    """A reward of whole answers, or of each of their tokens, computed on the host.

    Args:
        function: `(prompt, answer) -> reward`, of texts; a number is the reward of the answer's last token, an array has a
            number for each of its tokens (EOS included). What else it names among its arguments it is given: `target`, the
            prompt's own, and `tokens`, those of the answer.
    """

    function: Any

    def __post_init__(self):
        if not callable(self.function):
            raise UserError(
                f"REWARD_FUNCTION={self.function!r} is no function of a prompt and an answer: name one, such as "
                "@number_paths.reward"
            )

    @property
    def takes_target(self) -> bool:
        return self._takes("target")

    def _takes(self, name: str) -> bool:
        return name in inspect.signature(self.function).parameters

    def score(self, experience: Experience, prompts: TextData, mesh: Mesh) -> Experience:
        """The draw with the reward of each token; every process scores the rows that its devices hold."""
        inputs, tokens = sharding.local_part(experience.inputs), sharding.local_part(experience.tokens)
        targets = sharding.local_part(experience.demonstrations) if self.takes_target else tokens
        ends = real_tokens(tokens).sum(axis=-1)
        rewards = np.zeros(tokens.shape, np.float32)
        for row, end in enumerate(ends):
            texts = prompts.decode_inputs(inputs[row]), prompts.decode(tokens[row, :end])
            more = {"target": prompts.decode(targets[row])} if self.takes_target else {}
            more |= {"tokens": tokens[row, :end].tolist()} if self._takes("tokens") else {}
            self._write(rewards[row, :end], self.function(*texts, **more), texts)
        placed = sharding.rows_to_global(mesh, rewards, experience.tokens.shape[0])
        return dataclasses.replace(experience, rewards=placed)

    def _write(self, row: np.ndarray, reward: Any, texts: tuple[str, str]) -> None:
        name = getattr(self.function, "__name__", repr(self.function))
        gave = f"REWARD_FUNCTION={name} gave {reward!r} for the answer {texts[1]!r} to {texts[0]!r}"
        try:
            values = np.asarray(reward).astype(np.float32, casting="same_kind")
        except (TypeError, ValueError):
            raise UserError(f"{gave}: return a number, or one for each token") from None
        if values.ndim and values.shape != row.shape:
            raise UserError(
                f"REWARD_FUNCTION={name} gave {values.shape} for the {len(row)} tokens of {texts[1]!r}: return one number, "
                "or one for each token"
            )
        if not np.isfinite(values).all():
            raise UserError(f"{gave}: return finite numbers")
        row[-1 if values.ndim == 0 else slice(None)] = values

"""Makes the rows of a training set from its examples."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from lmirl_jax.data.given_rewards import LABEL, token_rewards
from lmirl_jax.data.jsonl import WEIGHT
from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.packing import Packer
from lmirl_jax.data.preferences import rejected_example, without_end
from lmirl_jax.data.task_parts import TURNS, Example, last_turn
from lmirl_jax.rows import Episodes
from lmirl_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class RowMaker:
    """Makes rows; the arguments are those of `TrainDataset`.

    Args:
        task: the task.
        lengths: the greatest lengths of a row.
        discount: gamma.
        turns, episodes: what is learnt of a conversation.
        with_rewards, with_labels: whether rows have given rewards, and say which answers are right.
        preferences: whether a row with the rejected answer follows each example's own.
        rejected_ends: whether rejected answers end in EOS, or are prefixes.
    """

    task: Task
    lengths: Mapping[str, int]
    discount: float
    turns: Literal["all", "last"]
    episodes: Episodes
    with_rewards: bool
    with_labels: bool
    preferences: bool
    rejected_ends: bool

    def rows(self, examples: Sequence[Example], lengths: Mapping[str, int]) -> list[Batch]:
        """The row that holds these examples, without a batch axis; with preferences, that of one and of its rejected answer.

        Args:
            examples: the examples, for which `lengths` has room.
            lengths: the lengths of the row.
        """
        if not self.preferences:
            return [self._row(examples, lengths)]
        (example,) = examples
        example = last_turn(example)
        rejected = rejected_example(example)
        assert rejected is not None
        if not self.rejected_ends:
            rejected = rejected._replace(targets=without_end(rejected.targets, self.task.eos_ids))
        if WEIGHT in example.features:
            rejected.features[WEIGHT] = example.features[WEIGHT]
        return [self._row([each], lengths) for each in (example, rejected)]

    def _row(self, examples: Sequence[Example], lengths: Mapping[str, int]) -> Batch:
        packer = Packer(
            1,
            lengths=lengths,
            discount=self.discount,
            eos_ids=self.task.eos_ids,
            with_rewards=self.with_rewards,
            with_labels=self.with_labels,
            episodes=self.episodes,
        )
        for example in examples:
            self._add(packer, example)
        return packer.rows[0]

    def _add(self, packer: Packer, example: Example) -> None:
        rewards = token_rewards(example.features, len(example.targets))
        if self.turns == "last":
            example = last_turn(example)
        features, targets = example.features, example.targets
        prompt = self.task.trim_prompt(example.inputs, self.lengths["inputs"])
        place = packer.add(
            prompt,
            targets,
            weight=features.get(WEIGHT, 1.0),
            # The last turn is the end of its conversation.
            rewards=None if rewards is None else rewards[len(rewards) - len(targets) :],
            turns=features.get(TURNS),
            label=features.get(LABEL, True),
        )
        # A plan gives a row no more than it holds.
        assert place is not None and len(prompt) <= len(packer.rows[0].prompt_tokens)
        assert place.stop - place.start == min(len(targets), self.lengths["targets"])

"""What is counted of examples while they are tokenised, so that problems of a split show before it is used."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from lmirl_jax.data.given_rewards import LABEL, has_label, has_rewards
from lmirl_jax.data.jsonl import WEIGHT
from lmirl_jax.data.preferences import REJECTED, has_rejected, rejected_example
from lmirl_jax.data.task_parts import FEATURES, TURNS, TURNS_LEFT_OUT, Example
from lmirl_jax.data.texts import stored_text
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.data.vocabulary_losses import Losses

# What `Facts` counts of examples, and the file of a split's facts has too.
COUNTED = (
    *("examples", "without_eos", "rewarded", "conversations", "preferences", "labelled", "right"),
    "turns_left_out",
)


@dataclasses.dataclass
class Facts:
    """What is counted of the examples of a shard, or of a split.

    Args:
        examples: their number.
        without_eos: the number of targets that do not end in EOS.
        rewarded: the number with rewards.
        conversations: the number with several assistant turns.
        preferences: the number with a rejected answer.
        labelled: the number that say whether their answer is right.
        right: the number whose answer is right.
        turns_left_out: the number of conversations whose earlier assistant turns cannot be learnt.
        heaviest: the greatest weight; None if none has one.
        lowest: the smallest token, at most 0.
        highest: the greatest token, at least 0.
        losses: by feature, the texts that the vocabulary cannot hold.
    """

    examples: int = 0
    without_eos: int = 0
    rewarded: int = 0
    conversations: int = 0
    preferences: int = 0
    labelled: int = 0
    right: int = 0
    turns_left_out: int = 0
    heaviest: float | None = None
    lowest: int = 0
    highest: int = 0
    losses: dict[str, Losses] = dataclasses.field(
        default_factory=lambda: {feature: Losses() for feature in FEATURES}
    )

    def add(self, example: Example, vocabularies: Mapping[str, Vocabulary]) -> None:
        """Counts an example."""
        features, targets = example.features, example.targets
        self.examples += 1
        self.without_eos += not len(targets) or int(targets[-1]) not in vocabularies["targets"].eos_ids
        self.rewarded += has_rewards(features)
        self.conversations += TURNS in features
        self.preferences += has_rejected(features)
        self.labelled += has_label(features)
        self.right += has_label(features) and features[LABEL]
        self.turns_left_out += TURNS_LEFT_OUT in features
        if WEIGHT in features:
            self.heaviest = max(features[WEIGHT], self.heaviest or 0)
        for feature, lost in self.losses.items():
            lost.add(vocabularies[feature], getattr(example, feature), stored_text(features, feature))
        rejected = rejected_example(example)
        if rejected is not None:
            text = stored_text(features, REJECTED)
            self.losses["targets"].add(vocabularies["targets"], rejected.targets, text)

    def merge(self, other: "Facts") -> None:
        """Adds the facts of examples that come after these."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.heaviest = max((x for x in (self.heaviest, other.heaviest) if x is not None), default=None)
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        for feature, lost in self.losses.items():
            lost.merge(other.losses[feature])


def parse_facts(described: UInt8[np.ndarray, " bytes"]) -> Facts:
    """The facts that are an array of a shard."""
    facts = json.loads(described.tobytes())
    losses = {feature: Losses(**lost) for feature, lost in facts.pop("losses").items()}
    return Facts(**facts, losses=losses)

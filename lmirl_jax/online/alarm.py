"""Warns of collapse: the discriminator is always right, or the policy has lost its entropy."""

from collections.abc import Mapping

ACCURACY = 0.99
PATIENCE = 100
ENTROPY = 0.01


class Collapse:
    """Reads the metrics of each step, and warns once of each kind of collapse.

    Args:
        accuracy: the accuracy of the discriminator, a share, above which the policy can no longer learn from its reward.
        patience: the number of updates in a row above this accuracy before the warning.
        entropy: the entropy of the policy on its rollouts, in nats per token, below which the rollouts hardly differ.
    """

    def __init__(self, accuracy: float = ACCURACY, patience: int = PATIENCE, entropy: float = ENTROPY):
        self._accuracy, self._patience, self._entropy = accuracy, patience, entropy
        self._streak, self._warned = 0, set()

    def __call__(self, metrics: Mapping[str, float]) -> str | None:
        """Returns a line about a collapse the first time that the metrics show it, else None."""
        self._streak = self._streak + 1 if metrics.get("discriminator/accuracy", 0.0) > self._accuracy else 0
        if self._streak == self._patience:
            return self._once(
                "accuracy",
                f"the discriminator has been right on over {self._accuracy:.0%} for {self._patience} updates: its reward no "
                "longer tells answers apart; lower CRITIC_LEARNING_RATE, or raise DISCRIMINATOR_LABEL_SMOOTHING, "
                "GRADIENT_PENALTY or MLE_WEIGHT",
            )
        if metrics.get("samples/entropy", self._entropy) < self._entropy:
            return self._once(
                "entropy",
                f"the policy's entropy on its rollouts is {metrics['samples/entropy']:.2g} nats a token: it has collapsed; "
                "raise ENTROPY_WEIGHT, KL_WEIGHT or MLE_WEIGHT, or lower LEARNING_RATE",
            )
        return None

    def _once(self, name: str, line: str) -> str | None:
        if name in self._warned:
            return None
        self._warned.add(name)
        return line

"""A collapse of adversarial training, said once: the discriminator is never wrong any more, or the policy is sure of all."""

from collections.abc import Mapping

ACCURACY = 0.99
PATIENCE = 100
ENTROPY = 0.01


class Collapse:
    """Looks at each step's metrics.

    Args:
        accuracy: of the discriminator, a share; above it there is nothing left that the policy could learn from it.
        patience: updates in a row for which it has to be so.
        entropy: of the policy on its own answers, in nats a token; below it the answers are all but fixed.
    """

    def __init__(self, accuracy: float = ACCURACY, patience: int = PATIENCE, entropy: float = ENTROPY):
        self._accuracy, self._patience, self._entropy = accuracy, patience, entropy
        self._sure, self._said = 0, set()

    def __call__(self, metrics: Mapping[str, float]) -> str | None:
        """A line about what has gone wrong, the first time that it has."""
        self._sure = self._sure + 1 if metrics.get("discriminator/accuracy", 0.0) > self._accuracy else 0
        if self._sure == self._patience:
            return self._once(
                "accuracy",
                f"the discriminator has been right on over {self._accuracy:.0%} for {self._patience} updates: its reward no "
                "longer tells answers apart; lower CRITIC_LEARNING_RATE, or raise DISCRIMINATOR_LABEL_SMOOTHING, "
                "GRADIENT_PENALTY or MLE_WEIGHT",
            )
        if metrics.get("samples/entropy", self._entropy) < self._entropy:
            return self._once(
                "entropy",
                f"the policy's entropy on its own answers is {metrics['samples/entropy']:.2g} nats a token: it has collapsed; "
                "raise ENTROPY_WEIGHT, KL_WEIGHT or MLE_WEIGHT, or lower LEARNING_RATE",
            )
        return None

    def _once(self, name: str, line: str) -> str | None:
        if name in self._said:
            return None
        self._said.add(name)
        return line

"""Remembers the best evaluation of a run and its step, and counts the evaluations since then."""

import dataclasses
import difflib
import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from lmirl_jax.arguments import Count, NonNegative, Text, check_arguments
from lmirl_jax.types import UserError

LESS_IS_BETTER = ("loss", "perplexity", "self_bleu", "log_prob_gap")


@check_arguments
@dataclasses.dataclass(frozen=True)
class BestConfig:
    """Chooses the best evaluation, and the patience with which training waits for a better one.

    Args:
        metric: a metric of the evaluations, such as `eval/loss`; the checkpoint where it is best is kept. None keeps no best one.
        mode: 'max' or 'min'; None for 'min' for losses, perplexity, Self-BLEU and log-probability gaps, and 'max' for the rest.
        patience: training stops after this number of evaluations in a row without a better one; None for never.
        min_delta: an evaluation resets the patience only if it is better by more than this.

    Raises:
        UserError: a value out of range, or a patience without a metric.
    """

    metric: Text | None = None
    mode: Literal["max", "min"] | None = None
    patience: Count | None = None
    min_delta: NonNegative = 0.0

    def __post_init__(self):
        if self.patience is not None and self.metric is None:
            raise UserError(
                f"EARLY_STOPPING_PATIENCE={self.patience} needs a metric to watch: set BEST_METRIC, such as 'eval/loss'"
            )

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        mode = self.mode
        if mode is None:
            last = (self.metric or "").rsplit("/", 1)[-1]
            mode = "min" if any(name in last for name in LESS_IS_BETTER) else "max"
        return 1 if mode == "max" else -1

    def check(self, known: Collection[str]) -> None:
        """Raises a UserError where no evaluation has the metric.

        Args:
            known: the names of all metrics of the evaluations; none where there is nothing to evaluate on.
        """
        if self.metric is None or self.metric in known:
            return
        if not known:
            raise UserError(
                f"BEST_METRIC={self.metric!r} has nothing to be measured on: there is no validation split "
                "(with DATA, set VALIDATION_DATA), or no evaluation in EVALUATIONS"
            )
        near = difflib.get_close_matches(self.metric, list(known), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"they have {', '.join(sorted(known))}"
        raise UserError(f"BEST_METRIC={self.metric!r} is no metric of this run's evaluations: {hint}")


class Best:
    """Tracks the best evaluation so far. Its state is part of every checkpoint, so that resuming is exact.

    Args:
        config: the metric and the patience.
    """

    def __init__(self, config: BestConfig):
        self.config = config
        self.step: int | None = None
        self.value: float | None = None
        # It differs from `value` where an improvement was smaller than min_delta.
        self._to_beat: float | None = None
        self._since = 0

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Takes an evaluation; returns whether it is the best so far. An undefined value never is."""
        if self.config.metric is None:
            return False
        value = metrics.get(self.config.metric, math.nan)
        best = self._beats(value, self.value)
        if best:
            self.step, self.value = step, float(value)
        if self._beats(value, self._to_beat, self.config.min_delta):
            self._to_beat, self._since = float(value), 0
        else:
            self._since += 1
        return best

    @property
    def exhausted(self) -> bool:
        """Whether the patience is used up, so that the run ends."""
        return self.config.patience is not None and self._since >= self.config.patience

    def state(self) -> dict[str, Any] | None:
        """The state for `set_state`, as JSON; None where there is no metric."""
        if self.config.metric is None:
            return None
        state = {"metric": self.config.metric, "sign": self.config.sign}
        return state | {
            "step": self.step,
            "value": self.value,
            "to_beat": self._to_beat,
            "since": self._since,
        }

    def set_state(self, state: Mapping[str, Any] | None) -> None:
        """Continues from a checkpoint's state; starts anew where that state is about another metric."""
        if state is None or (state["metric"], state["sign"]) != (self.config.metric, self.config.sign):
            return
        self.step, self.value = state["step"], state["value"]
        self._to_beat, self._since = state["to_beat"], state["since"]

    def describe(self) -> str:
        """Says for the log which evaluation is the best."""
        if self.step is None:
            return f"{self.config.metric} was undefined in every evaluation"
        which = "highest" if self.config.sign > 0 else "lowest"
        return f"{which} {self.config.metric} {self.value:.6g} at step {self.step}"

    def describe_patience(self) -> str:
        """Says for the log why the run was stopped."""
        margin = f" by more than {self.config.min_delta:g}" if self.config.min_delta else ""
        return f"{self._since} evaluations in a row without a better {self.config.metric}{margin}"

    def _beats(self, value: float, other: float | None, margin: float = 0.0) -> bool:
        if not math.isfinite(value):
            return False
        return other is None or self.config.sign * (value - other) > margin

"""Reads each update's metrics for values that are not finite and for spikes of the loss, and decides what the run does."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from lmirl_jax.training.fault_config import FaultConfig
from lmirl_jax.training.finite import NONFINITE, is_watched
from lmirl_jax.training.suspect_batch import save_batch
from lmirl_jax.types import Batch, UserError

# The losses whose median a spike is compared with, and the fewest of them.
WINDOW, FEWEST = 50, 10


class LossSpike(Exception):
    """The loss of an update is a spike: the run goes back to its last checkpoint.

    Args:
        step: the number of the update.
        loss: its loss.
        median: the median of the losses before it.
        position: the position in the data after its batch.
    """

    def __init__(self, step: int, loss: float, median: float, position: dict[str, Any]):
        super().__init__(f"the loss at step {step} is {loss:.4g}, and the median before it {median:.4g}")
        self.step, self.loss, self.median, self.position = step, loss, median, position


class Guard:
    """Counts what went wrong. Its state is part of every checkpoint, so that resuming is exact.

    Args:
        config: the settings.
        model_dir: the folder of the run.
        data: the training set, which may decode texts.
    """

    def __init__(self, config: FaultConfig, model_dir: epath.Path, data: Any = None):
        self.config = config
        self._model_dir, self._data = model_dir, data
        self.set_state({})

    def state(self) -> dict[str, Any]:
        """The state for `set_state`, as JSON."""
        return {
            "skipped": self._skipped,
            "in_a_row": self._in_a_row,
            "rollbacks": self.rollbacks,
            "losses": self._losses,
            "unevaluated": self.unevaluated,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint's state; an empty one is that of a new run."""
        self._skipped, self._in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)
        self.rollbacks: int = state.get("rollbacks", 0)
        self._losses: list[float] = list(state.get("losses", []))
        # The metrics of the checkpoint's step, if a signal ended its evaluation.
        self.unevaluated: dict[str, float] | None = state.get("unevaluated")

    def check(
        self,
        step: int,
        metrics: dict[str, float],
        batch: Batch,
        position: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """Takes the metrics of an update, in which it replaces `nonfinite` by the count of updates left out, if any are.

        Raises:
            UserError: a value is not finite, and the run stops for that.
            LossSpike: the run goes back to its last checkpoint.
        """
        if metrics.pop(NONFINITE):
            self._take_nonfinite(step, metrics, batch, say)
        else:
            self._in_a_row = 0
            self._take_loss(step, metrics["loss"], position)
        if self.config.on_nonfinite == "skip":
            metrics["skipped_updates"] = float(self._skipped)

    def _take_nonfinite(
        self, step: int, metrics: Mapping[str, float], batch: Batch, say: Callable[[str], None]
    ) -> None:
        # A loss that is not finite comes before gradients that it makes so.
        names = sorted(filter(is_watched, metrics), key=lambda name: name != "loss")
        name = next(name for name in names if not np.isfinite(metrics[name]))
        value = metrics[name]
        what = f"the {name.replace('_', ' ')} at step {step} is {value}"
        where = self._save(step, batch)
        if self.config.on_nonfinite == "stop":
            raise UserError(
                f"{what}: nothing of it was saved; lower LEARNING_RATE or TD_WEIGHT, or clip gradients "
                "(training.adamw.clip_norm), and run again from the last checkpoint, or leave such updates out "
                f"(ON_NONFINITE='skip'); {where}"
            )
        self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
        limit = self.config.max_nonfinite_updates
        if self._in_a_row > limit:
            raise UserError(
                f"{what}, after {limit} updates in a row that were left out (MAX_NONFINITE_UPDATES): lower "
                f"LEARNING_RATE or TD_WEIGHT, or mend the data, and run again from the last checkpoint; {where}"
            )
        say(f"warning: {what}: the update is left out, {self._skipped} so far; {where}")

    def _save(self, step: int, batch: Batch) -> str:
        """Saves the batch; returns in words where it is, and the command that replays it."""
        try:
            path = save_batch(self._model_dir, step, batch, self._data)
        except OSError as error:
            return f"its batch could not be saved ({error.strerror})"
        if path is None:
            return "its batch is not saved, as there are many already"
        if not (self._model_dir / "config.gin").exists():
            return f"its batch is {path}"
        return f"its batch is replayed by: lmirl doctor --replay={path}"

    def _take_loss(self, step: int, loss: float, position: dict[str, Any]) -> None:
        factor = self.config.spike_factor
        if factor is None:
            return
        if len(self._losses) >= FEWEST:
            median = statistics.median(self._losses)
            # The losses of policy gradients may have any sign, where a multiple of the median means nothing.
            if loss > factor * median > 0:
                raise LossSpike(step, loss, median, position)
        self._losses = [*self._losses, loss][-WINDOW:]

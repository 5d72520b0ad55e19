"""The settings of what a run does when something goes wrong while it trains."""

import dataclasses
from typing import Annotated, Literal

from lmirl_jax.argument_rules import Within
from lmirl_jax.arguments import Count, Positive, check_arguments


@check_arguments
@dataclasses.dataclass(frozen=True)
class FaultConfig:
    """Chooses what a run does about values that are not finite, about spikes of the loss, and about steps that take too long.

    Args:
        on_nonfinite: what happens where a loss or a gradient is NaN or infinite: 'stop' ends the run before anything of
            that update is saved; 'skip' leaves the update out, and parameters, optimizer and networks stay as they were.
        max_nonfinite_updates: with 'skip', the number of such updates in a row after which the run stops, as of
            `optax.apply_if_finite`.
        spike_factor: where the loss exceeds this multiple of the median of the last losses, the run goes back to its last
            checkpoint and leaves out the data up to there; None for never.
        max_rollbacks: the number of times that a run goes back before it stops.
        watchdog_seconds: after this time in one phase of a step, the stacks of all threads are printed; None for never.
    """

    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_nonfinite_updates: Count = 10
    spike_factor: Annotated[float, Within(1, open_low=True)] | None = None
    max_rollbacks: Count = 3
    watchdog_seconds: Positive | None = 600.0

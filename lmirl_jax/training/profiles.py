"""A profile of some steps, which TensorBoard and Perfetto open."""

from collections.abc import Sequence
from typing import Any

import jax
from etils import epath


class Profile:
    """Records what the devices and the trainer's threads do, from the beginning of one step to the end of another.

    Every process records its own, below MODEL_DIR/plugins/profile, where TensorBoard's profile plugin looks.

    Args:
        folder: MODEL_DIR.
        steps: the first and the last step to record; none for no profile.
    """

    def __init__(self, folder: epath.Path, steps: Sequence[int]):
        self._folder, self._steps, self._runs = folder, tuple(steps), False

    def begin(self, step: int) -> None:
        """Starts at the first step that is made of those to record."""
        if self._steps and self._steps[0] <= step <= self._steps[1] and not self._runs:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._runs = True

    def end(self, step: int, state: Any) -> None:
        """Ends at the last one, once the devices have made the state."""
        if self._runs and step >= self._steps[1]:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Writes what is recorded, also of a run that ends before."""
        if self._runs:
            self._runs = False
            jax.profiler.stop_trace()

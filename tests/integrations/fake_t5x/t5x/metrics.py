"""T5X's mean over steps."""

from typing import Any

import flax
from clu import metrics as clu_metrics


@flax.struct.dataclass
class AveragePerStep(clu_metrics.Metric):
    steps: int = 1
    total: Any = None

    def merge(self, other):
        return type(self)(steps=self.steps + other.steps, total=self.total + other.total)

    def compute(self):
        return self.total / self.steps

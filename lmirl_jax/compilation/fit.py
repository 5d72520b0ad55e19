"""Searches for the settings with the highest bound on MFU among those that fit: batch size, remat and mesh."""

import dataclasses
import re
from collections.abc import Callable, Iterator

from lmirl_jax.compilation.programs import DoesNotFit
from lmirl_jax.compilation.summary import Summary

REMAT = ("none", "minimal", "full")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Settings to try.

    Args:
        batch_size: rows of a global batch.
        remat: what the backward pass computes again, a name of `REMAT`.
        tensor: the size of the mesh axis `tensor`.
    """

    batch_size: int
    remat: str
    tensor: int


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate and what was found of it; None where the settings do not go together."""

    candidate: Candidate
    result: Summary | DoesNotFit | None

    @property
    def score(self) -> float:
        """The bound on MFU where it fits; else less than 0, the less the more memory it lacks."""
        if self.result is None:
            return float("-inf")
        if isinstance(self.result, DoesNotFit):
            return -_shortage(self.result.reason)
        return (self.result.mfu_bound or 0.0) if self.result.memory.fits else -self.result.memory.share


def search(
    start: Candidate, evaluate: Callable[[Candidate], Summary | DoesNotFit | None], most_trials: int
) -> Iterator[Trial]:
    """Climbs from the given settings to a neighbour with a higher score, as long as there is one.

    Neighbours double or halve the batch or the tensor axis, recompute more or less, or do more of both. Where a candidate does
    not fit, neighbours that need less memory come first.

    Args:
        start: the settings to begin with.
        evaluate: compiles a candidate; None where the settings do not go together.
        most_trials: how many candidates are compiled at most.

    Yields:
        Each candidate tried, in order.
    """
    best = Trial(start, evaluate(start))
    yield best
    tried = {start}
    while True:
        for candidate in _neighbours(best):
            if candidate in tried:
                continue
            if len(tried) == most_trials:
                return
            tried.add(candidate)
            trial = Trial(candidate, evaluate(candidate))
            yield trial
            if trial.score > best.score:
                best = trial
                break
        else:
            return


def _neighbours(trial: Trial) -> list[Candidate]:
    here, place = trial.candidate, REMAT.index(trial.candidate.remat)
    remat = {step: REMAT[place + step] for step in (-1, 1) if 0 <= place + step < len(REMAT)}
    more = [dataclasses.replace(here, batch_size=here.batch_size * 2)]
    less = [dataclasses.replace(here, batch_size=here.batch_size // 2)] if here.batch_size > 1 else []
    more += [dataclasses.replace(more[0], remat=remat[1])] if 1 in remat else []
    more += [dataclasses.replace(here, remat=remat[-1])] if -1 in remat else []
    less = ([dataclasses.replace(here, remat=remat[1])] if 1 in remat else []) + less
    tensor = [dataclasses.replace(here, tensor=here.tensor * 2)]
    tensor += [dataclasses.replace(here, tensor=here.tensor // 2)] if here.tensor > 1 else []
    return [*less, *tensor] if trial.score <= 0 else [*more, *tensor, *less]


def _shortage(reason: str) -> float:
    """Needed over available memory, from the compiler's words; 1,000 where they have no numbers."""
    sizes = [
        float(size) * 1024 ** "KMGT".index(unit) for size, unit in re.findall(r"([\d.]+)([KMGT])", reason)
    ]
    return sizes[0] / sizes[1] if len(sizes) == 2 and sizes[1] else 1000.0

"""What corrupting right answers does to their rewards."""

import dataclasses

from lmirl_jax.rewards.scored import Scored


@dataclasses.dataclass(frozen=True)
class CorruptionEffect:
    """How rewards answer to one kind of corruption; shares are from 0 to 1, with 95% intervals.

    Args:
        kind: "wrong digit", "dropped step" and the like.
        count: how many answers were corrupted.
        return_drops: the share whose return is lower than that of the original.
        return_drops_interval: of that share.
        site_drops: the share whose reward at the corrupted place is lower than at the same place of the original; None where
            the corruption has no such place.
        site_drops_interval: of that share.
        located: the share in which the token with the largest drop lies at the place.
        examples: originals and what became of them, with the corrupted characters (from, to) of the latter.
    """

    kind: str
    count: int
    return_drops: float
    return_drops_interval: tuple[float, float]
    site_drops: float | None
    site_drops_interval: tuple[float, float] | None
    located: float | None
    examples: tuple[tuple[Scored, Scored, tuple[int, int]], ...]

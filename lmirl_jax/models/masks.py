"""Which keys a query may attend to: those of its segment, up to itself, within a window."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The value is finite, so that a row without any key to attend to has no NaN.
MASKED = -1e10
# The window of a layer without one: more than any two positions are apart.
NO_WINDOW = 2**30


def window_mask(
    queries: Int[Array, "#batch queries"],
    keys: Int[Array, "#batch keys"],
    window: int | Int[Array, ""],
    *,
    causal: bool,
) -> Bool[Array, "#batch 1 queries keys"]:
    """Marks the keys within a window: the last `window` up to the query itself, or, if not causal, `window` on both sides.

    Args:
        queries, keys: positions, the same in all rows if there is only one.
        window: the size of the window, in tokens.
        causal: whether later keys are hidden anyway.
    """
    distance = queries[:, :, None] - keys[:, None, :]
    inside = distance < window if causal else jnp.abs(distance) <= window
    return inside[:, None]


def mask_to_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(mask, 0.0, MASKED).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Sees:
    """Which keys a query sees by their places in a row, whatever the segments.

    Args:
        causal: whether it sees only the keys up to its own place.
        window: the last `window` keys up to its own place, or, if not causal, `window` on both sides; None for no window.
    """

    causal: bool
    window: int | None = None

    def distances(self, queries: int, keys: int) -> tuple[int, int]:
        """The least and the largest distance, place of the key minus place of the query, that a query sees."""
        nearest, furthest = 1 - queries, keys - 1
        if self.window is not None:
            nearest = max(nearest, 1 - self.window if self.causal else -self.window)
            furthest = min(furthest, self.window)
        return nearest, 0 if self.causal else furthest


class Side(NamedTuple):
    """What a mask must know of the queries, or of the keys.

    Args:
        segment_ids: the segment of each token; 0 on padding.
        places: their places in the row.
        prompts: the tokens that see each other whatever their order; None for none.
    """

    segment_ids: Int[Array, "*blocks batch tokens"]
    places: Int[Array, "*blocks tokens"]
    prompts: Bool[Array, "*blocks batch tokens"] | None = None


def visible(queries: Side, keys: Side, sees: Sees) -> Bool[Array, "batch 1 queries keys"]:
    """Marks the keys that each query sees: those of its segment, never padding, as far as their places allow it."""
    of_queries, of_keys = queries.segment_ids, keys.segment_ids
    distance = queries.places[:, None] - keys.places[None, :]
    allowed = jnp.ones_like(distance, bool)[None]
    if sees.causal:
        allowed = (distance >= 0)[None]
        if queries.prompts is not None and keys.prompts is not None:
            allowed = allowed | (queries.prompts[:, :, None] & keys.prompts[:, None, :])
    if sees.window is not None:
        near = distance < sees.window if sees.causal else jnp.abs(distance) <= sees.window
        allowed = allowed & near[None]
    mask = (of_queries[:, :, None] == of_keys[:, None, :]) & (of_keys > 0)[:, None, :] & allowed
    return mask[:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowMask:
    """The mask between whole rows, of which parts can be computed.

    Args:
        segment_ids: the segment of each key; the tokens of a segment are neighbours; 0 on padding.
        prompts: the tokens that see each other whatever their order; None where every token sees only earlier ones.
        queries: the segments of the queries; None where they are the keys' own tokens.
        causal: whether a token sees only the earlier ones of its row, and itself.
    """

    segment_ids: Int[Array, "batch keys"]
    prompts: Bool[Array, "batch keys"] | None = None
    queries: Int[Array, "batch queries"] | None = None
    causal: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def asking(self) -> Side:
        """The side of the queries."""
        of_queries = self.segment_ids if self.queries is None else self.queries
        return Side(of_queries, jnp.arange(of_queries.shape[1]), self.prompts)

    @property
    def asked(self) -> Side:
        """The side of the keys."""
        return Side(self.segment_ids, jnp.arange(self.segment_ids.shape[1]), self.prompts)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of queries and of keys of a row."""
        of_queries = self.segment_ids if self.queries is None else self.queries
        return of_queries.shape[1], self.segment_ids.shape[1]

    def whole(self, window: int | None = None) -> Bool[Array, "batch 1 queries keys"]:
        """The mask between all pairs of tokens."""
        return visible(self.asking, self.asked, Sees(self.causal, window))

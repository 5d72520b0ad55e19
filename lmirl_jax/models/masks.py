"""Which keys a query may attend to: those of its segment, up to itself, within a window."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The value is finite, so that a row without any key to attend to has no NaN.
MASKED = -1e10
# The window of a layer without one: more than any two positions are apart.
NO_WINDOW = 2**30


def attention_mask(
    queries: Int[Array, "batch queries"], keys: Int[Array, "batch keys"], *, causal: bool = False
) -> Bool[Array, "batch 1 queries keys"]:
    """Marks the keys to which each query may attend: those of its segment, but never padding.

    Args:
        queries: the segment of each query; 0 on padding.
        keys: the segment of each key; 0 on padding.
        causal: hides the keys that lie after the query.
    """
    mask = (queries[:, :, None] == keys[:, None, :]) & (keys > 0)[:, None, :]
    if causal:
        mask &= (jnp.arange(keys.shape[1])[None, :] <= jnp.arange(queries.shape[1])[:, None])[None]
    return mask[:, None]


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowMask:
    """The mask of whole rows that are read from left to right, of which parts can be computed.

    Args:
        segment_ids: the segment of each token; the tokens of a segment are neighbours; 0 on padding.
        prompts: the tokens that see each other whatever their order; None where every token sees only earlier ones.
    """

    segment_ids: Int[Array, "batch length"]
    prompts: Bool[Array, "batch length"] | None = None

    def part(
        self, queries: Int[Array, " queries"], keys: Int[Array, " keys"], window: int | None = None
    ) -> Bool[Array, "batch 1 queries keys"]:
        """The mask between some places of the rows."""
        of_queries, of_keys = (jnp.take(self.segment_ids, places, axis=1) for places in (queries, keys))
        visible = (keys[None, :] <= queries[:, None])[None]
        if self.prompts is not None:
            q, k = (jnp.take(self.prompts, places, axis=1) for places in (queries, keys))
            visible = visible | (q[:, :, None] & k[:, None, :])
        if window is not None:
            visible = visible & (queries[:, None] - keys[None, :] < window)[None]
        mask = (of_queries[:, :, None] == of_keys[:, None, :]) & (of_keys > 0)[:, None, :] & visible
        return mask[:, None]

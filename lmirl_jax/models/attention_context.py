"""What the layers of a stack share for self-attention, and what decoding has read before."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmirl_jax.models.dot_products import KeysValues
from lmirl_jax.models.masks import NO_WINDOW, RowMask
from lmirl_jax.models.rotary import Rotation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionContext:
    """What self-attention shares in all layers of a stack: positions, masks and biases.

    Args:
        queries: the positions of the tokens, the same in all rows if there is only one.
        keys: the positions of the tokens that self-attention may reach.
        bias: what is added to the scores of self-attention: masks, and biases that the layers share. None for long rows,
            whose scores are computed in blocks.
        rotation: the rotation of each token's queries and keys; None for none.
        local_rotation: the same in layers with a window; None where it does not differ.
        mask: the mask of long rows.
        shared: the bias of long rows that the layers share, by distance; see `RelativeBias.by_distance`.
    """

    queries: Int[Array, "#batch queries"]
    keys: Int[Array, "#batch keys"]
    bias: Float[Array, "#batch #heads queries keys"] | None
    rotation: Rotation | None = None
    local_rotation: Rotation | None = None
    mask: RowMask | None = None
    shared: Float[Array, "heads distances"] | None = None

    def rotation_in(self, window: int | Int[Array, ""] | None) -> Rotation | None:
        """The rotation in a layer with this window."""
        if self.local_rotation is None or window is None:
            return self.rotation
        is_local = jnp.asarray(window) < NO_WINDOW
        return jax.tree.map(lambda a, b: jnp.where(is_local, a, b), self.local_rotation, self.rotation)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """What self-attention of a layer has read before.

    Args:
        keys_values: the keys and values of each row; the next token takes the place of the oldest where they are full.
        index: the number of the next token.
        prompts: the keys and values of the prompts, which come before, one for all samples of a prompt; None for none.
    """

    keys_values: KeysValues
    index: Int[Array, ""]
    prompts: KeysValues | None = None

    def write(self, new: KeysValues) -> KeysValues:
        place = self.index % self.keys_values[0].shape[2]
        return jax.tree.map(
            lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, place, axis=2), self.keys_values, new
        )

"""How rows are cut into blocks, and which blocks of queries see which blocks of keys."""

import dataclasses

from lmirl_jax.models.dot_products import Options
from lmirl_jax.models.masks import Sees

# Blocks are multiples of this many tokens.
LANES = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a row is cut into blocks.

    Args:
        options: the scale and the bound of the scores.
        sees: what a query sees by places.
        queries, keys: the numbers of tokens of a row.
        query_block, key_block: those of a block.
        pairs: the blocks of queries and of keys that see each other, by number; those of a block of queries are neighbours.
    """

    options: Options
    sees: Sees
    queries: int
    keys: int
    query_block: int
    key_block: int
    pairs: tuple[tuple[int, int], ...]


def make_plan(
    options: Options, sees: Sees, queries: int, keys: int, block: int, *, all_pairs: bool = False
) -> Plan:
    """Cuts rows of `queries` and `keys` tokens into blocks.

    Args:
        options: see `Plan`.
        sees: see `Plan`.
        queries, keys: the numbers of tokens.
        block: the most tokens of a block.
        all_pairs: whether every block may see every other, whatever their places.
    """
    block_q, block_k = (_block(size, block) for size in (queries, keys))
    nearest, furthest = sees.distances(queries, keys)
    pairs = [
        (i, j)
        for i in range(-(-queries // block_q))
        for j in range(-(-keys // block_k))
        if all_pairs
        # The distances between two blocks are neighbours, so that it is enough to look at the ends of the two stretches.
        or (
            j * block_k - (i + 1) * block_q + 1 <= furthest and (j + 1) * block_k - 1 - i * block_q >= nearest
        )
    ]
    return Plan(options, sees, queries, keys, block_q, block_k, tuple(pairs))


def _block(length: int, most: int) -> int:
    """The size of blocks that are all nearly full."""
    even = -(-length // -(-length // most))
    return even if even == length else -(-even // LANES) * LANES

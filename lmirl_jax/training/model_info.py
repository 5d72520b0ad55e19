"""Writes model-info.txt, the list of a run's parameters and their shardings."""

from typing import Any

import jax
from etils import epath

from lmirl_jax import files
from lmirl_jax.models.trainable import frozen, trainable


def write_model_info(path: epath.Path, params: Any, shardings: Any) -> None:
    """Writes one line for each parameter: its name, size, shape and sharding, in the format of T5X."""
    lines, total = [], 0
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (key, leaf), place in zip(leaves, jax.tree.leaves(shardings), strict=True):
        name = jax.tree_util.keystr(key, simple=True, separator="/")
        lines.append(f"Variable {name:<60} size {leaf.size:<12} shape {leaf.shape!s:<24} {place.spec}")
        total += leaf.size
    with files.open_atomic(path) as file:
        lines.append(f"Total number of parameters: {total}")
        if frozen(params):
            trained = sum(leaf.size for leaf in jax.tree.leaves(trainable(params)))
            lines.append(f"Number of trained parameters: {trained}")
        file.write("\n".join(lines) + "\n")

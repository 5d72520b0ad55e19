"""Shardings of parameters and batches: the device mesh, and the rules from logical axes to mesh axes.

Five mesh axes: `slices` and `data` copy the parameters and split the batch, `fsdp` splits both, `sequence` splits the length of
activations, `tensor` splits heads, feed-forward and vocabulary. Models name the logical axes of their parameters; the rules are
the only place that knows both.
"""

from lmirl_jax.sharding.chips import CHIPS, Chip, chip_of, peak_flops
from lmirl_jax.sharding.compiler_options import compiler_options
from lmirl_jax.sharding.logical_axes import (
    LOGICAL_AXIS_RULES,
    logical_axes,
    parameter_shardings,
    replicated_sharding,
    rules_of,
)
from lmirl_jax.sharding.meshes import describe_mesh, make_mesh, use, use_devices
from lmirl_jax.sharding.rows import (
    BATCH_AXES,
    batch_sharding,
    check_batch_size,
    check_lengths,
    local_part,
    local_rows,
    rows_to_global,
    to_global,
)

__all__ = [
    "BATCH_AXES",
    "CHIPS",
    "LOGICAL_AXIS_RULES",
    "Chip",
    "batch_sharding",
    "check_batch_size",
    "check_lengths",
    "chip_of",
    "compiler_options",
    "describe_mesh",
    "local_part",
    "local_rows",
    "logical_axes",
    "make_mesh",
    "parameter_shardings",
    "peak_flops",
    "replicated_sharding",
    "rows_to_global",
    "rules_of",
    "to_global",
    "use",
    "use_devices",
]

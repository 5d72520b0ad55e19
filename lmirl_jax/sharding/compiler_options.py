"""What the XLA compiler is asked for beyond its own choices, by the kind of chip, each with its reason.

Most of what guides for TPUs set is what the compiler of libtpu 0.0.42 does by itself: `xla_tpu_enable_async_collective_fusion`,
`..._fuse_all_gather`, `..._multiple_steps`, `xla_tpu_overlap_compute_collective_tc` and `xla_enable_async_all_gather` give the
same program, and are left alone. docs/compile.md has the numbers.
"""

import os
from collections.abc import Mapping

from jax.sharding import Mesh

# A product whose sum goes over a split axis (`fsdp`) would be computed piece by piece, in a loop that exchanges weights with the
# neighbours: each piece is thin, and its turn reads and writes the whole result. Without the loop the weights are gathered while
# the layer before is computed, as much is sent, and half as much goes through HBM. Other chips were not compared.
_WHOLE_PRODUCTS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 2**20}

OPTIONS: Mapping[str, Mapping[str, int]] = {"TPU v5 lite": _WHOLE_PRODUCTS}
# Where a user sets options for a whole process.
VARIABLES = ("LIBTPU_INIT_ARGS", "XLA_FLAGS")


def compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """The options for programs of the devices of a mesh, without those that the environment sets; None for none.

    Args:
        mesh: the devices, which may be of a topology that is not there.

    Returns:
        What `jax.jit` takes as `compiler_options`.
    """
    given = " ".join(os.environ.get(name, "") for name in VARIABLES)
    chosen = OPTIONS.get(mesh.devices.flat[0].device_kind, {})
    return {name: str(value) for name, value in chosen.items() if name not in given} or None

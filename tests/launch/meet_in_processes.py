"""One of two processes of two devices each: they meet in `make_mesh`, and compute together, one later than the other.

python -m tests.launch.meet_in_processes ADDRESS INDEX`.
"""

import sys
import time

import jax
import numpy as np

from lmirl_jax import sharding

# Gloo would wait for a first operation for 30.
APART_SECONDS = 35


def main(address: str, index: str) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, int(index))
    mesh = sharding.make_mesh(data=2, fsdp=2)
    mine = np.arange(8, dtype=np.float32).reshape(4, 2)[2 * int(index) :][:2]
    rows = sharding.rows_to_global(mesh, mine, 4)
    if index == "1":
        time.sleep(APART_SECONDS)
    by_copy = jax.jit(lambda rows: rows.reshape(2, 2, 2).mean(0).sum(0))(rows)
    print([float(value) for value in by_copy])


if __name__ == "__main__":
    main(*sys.argv[1:])

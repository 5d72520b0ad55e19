"""The connections between the processes of a mesh of CPUs, which are made while all of them are at the same place."""

import itertools

import jax
import jax.numpy as jnp
import orbax.checkpoint.multihost as ocp_multihost
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# The slowest process may still prepare its copy of the data. A process that has died is found by its missing heartbeats.
MEETING_SECONDS = 24 * 3600


def connect(mesh: Mesh) -> None:
    """Lets the processes of a mesh of CPUs connect in every group of devices that a sum over mesh axes goes over.

    Gloo connects a group at its first operation and gives up after 30 seconds, which nothing can change. There the processes
    may be further apart than that, because each has compiled a program of its own; here nothing but a sum is compiled. Of one
    process, and of other devices, which wait as long as it takes, this does nothing.

    Args:
        mesh: the devices of all processes.

    Raises:
        JaxRuntimeError: a process is missing.
    """
    if jax.process_count() == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    axes = tuple(name for name, size in mesh.shape.items() if size > 1)
    counts = range(1, len(axes) + 1)
    groups = [group for count in counts for group in itertools.combinations(axes, count)]

    def sums(ones: jax.Array) -> jax.Array:
        # One after the other: processes that connected two groups in different orders would wait for one another.
        for group in groups:
            ones = jax.lax.pmean(ones, group) * 2
        return ones

    every = PartitionSpec(axes)
    ones = jax.make_array_from_callback(
        (mesh.size,), NamedSharding(mesh, every), lambda index: jnp.ones(mesh.size)[index]
    )
    ocp_multihost.get_barrier_sync_fn()(key="lmirl connect", timeout_ms=MEETING_SECONDS * 1000)
    jax.block_until_ready(jax.jit(jax.shard_map(sums, mesh=mesh, in_specs=every, out_specs=every))(ones))

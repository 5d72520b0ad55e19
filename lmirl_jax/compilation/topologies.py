"""The chips of a TPU topology, on a machine that has none of them: libtpu's compiler describes and serves them."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from lmirl_jax.sharding import chip_of
from lmirl_jax.types import UserError

INSTALL = "pip install 'lmirl_jax[compile]'"
# Without these libtpu looks for the chips of this machine at Google's metadata server, and warns that it finds none.
_NO_CHIPS_HERE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Within the block JAX keeps no compiled program on the disk: it cannot read one for chips that are not there."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    # JAX decides once whether it uses the cache.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def has_compiler() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def devices_of(topology: str, num_slices: int = 1) -> Sequence[jax.Device]:
    """The devices of a topology, for which programs can be compiled and not run; this process itself stays on its CPU.

    Args:
        topology: the chip and the sides of a slice, such as 'v5e:16x16'.
        num_slices: the number of slices, which are joined by the data centre's network.

    Raises:
        UserError: there is no such topology, or libtpu is not installed.
    """
    chip = chip_of(topology)
    if num_slices < 1:
        raise UserError(f"--num_slices={num_slices}: a mesh has one slice or more")
    if not has_compiler():
        raise UserError(f"no TPU compiler: libtpu is not installed; {INSTALL}")
    for name, value in _NO_CHIPS_HERE.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    options: dict[str, Any] = {"chip_config_name": "megacore"} if chip.megacore else {}
    if topology.endswith((":1x1", ":1x1x1")):
        options["chips_per_host_bounds"] = [1, 1, 1]
    if num_slices > 1:
        options["num_slices"] = num_slices
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology}: {str(error).splitlines()[0]}") from None

"""Loads a checkpoint in a process of its own and prints, as JSON, how much memory that took; see test_streaming.py.

python load_large_checkpoint.py FOLDER streamed|naive
"""

import json
import pathlib
import resource
import sys
import time

import jax

jax.config.update("jax_num_cpu_devices", 8)

import numpy as np  # noqa: E402
from etils import epath  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from lmirl_jax import interop, sharding  # noqa: E402
from lmirl_jax.models.abstract import build  # noqa: E402


def peak() -> int:
    """The largest number of bytes that this process has had in memory, with the pages of files."""
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        # getrusage also counts what the process that started this one had in memory.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def present() -> int:
    """The number of bytes that this process has in memory now; on systems that do not tell, its peak."""
    table = pathlib.Path("/proc/self/statm")
    return int(table.read_text().split()[1]) * resource.getpagesize() if table.is_file() else peak()


def load_naively(opened, shapes, shardings):
    """What a loader does that reads all tensors first, in this test's place of a control."""
    tensors = {}
    for file in sorted(pathlib.Path(opened.path).glob("*.safetensors")):
        tensors |= load_file(file)
    entries = {entry.ours: entry for entry in opened.entries}

    class Read:
        def tensors(self):
            return opened.source.tensors()

        def read(self, name, index):
            return tensors[name][index]

    def one(path, shape, place):
        entry = entries["/".join(part.key for part in path)]
        whole = entry.read(Read(), shape.shape, tuple(slice(0, size) for size in shape.shape))
        return jax.device_put(whole, place)

    return jax.tree_util.tree_map_with_path(one, shapes, shardings)


def main(folder: str, kind: str) -> None:
    mesh = sharding.make_mesh(fsdp=8)
    opened = interop.open_pretrained(epath.Path(folder))
    _, variables = build(opened.model)
    shardings = sharding.parameter_shardings(mesh, variables)
    shapes = jax.tree.map(
        lambda place, value: jax.ShapeDtypeStruct(value.shape, np.float32),
        shardings,
        {**variables.to_pure_dict()},
    )
    jax.block_until_ready(jax.device_put(np.zeros(8, np.float32), jax.devices()[0]))
    before, start = present(), time.monotonic()
    load = interop.load_params if kind == "streamed" else load_naively
    params = jax.block_until_ready(load(opened, shapes, shardings))
    leaves = jax.tree.leaves(params)
    print(
        json.dumps(
            {
                "above": peak() - before,
                "before": before,
                "bytes": sum(leaf.nbytes for leaf in leaves),
                "seconds": time.monotonic() - start,
                "checksum": [
                    float(np.asarray(leaf.addressable_shards[3].data).astype(np.float64).sum())
                    for leaf in leaves
                ],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What content hashes cost: the time of a save with and without them, and of a restore with and without the comparison.

    launch/local.sh python benchmarks/checkpoint_manifest.py [--gigabytes=1] [--arrays=16] [--runs=7] [--folder=/tmp]

Prints a JSON object: seconds and processor seconds of all threads (medians), and the costs as shares, pair by pair, of saves that
wait until all is on disk and of restores from the page cache. The seconds depend on the disk, which may wait for other work; a
folder in memory (/dev/shm) has no disk. Both kinds alternate; a save without hashes is a commit of Orbax alone. It also has the
seconds of hashing the files alone, by XXH3 and by what was tried beside it.
"""

import argparse
import contextlib
import hashlib
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.struct
import jax
import xxhash
from etils import epath
from provenance import provenance

from lmirl_jax import content_hashes
from lmirl_jax.checkpoints import CheckpointConfig, Checkpoints, manifest, newest

HASHES = {
    "xxh3_128": xxhash.xxh3_128,
    "blake2b_128": lambda: hashlib.blake2b(digest_size=16),
    "sha256": hashlib.sha256,
}


@flax.struct.dataclass
class Parameters:
    """What is saved."""

    params: Any
    extra: Any = None


def seconds(call: Callable[[], Any]) -> tuple[float, float]:
    """The seconds that a call takes, and those of all processors."""
    start, worked = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - worked


def timed_save(folder: epath.Path, state: Parameters, hashed: bool) -> tuple[float, float]:
    """A save into a new folder, which is opened before as in training."""
    with contextlib.ExitStack() as stack:
        saved = stack.enter_context(contextlib.closing(Checkpoints(folder, CheckpointConfig())))
        if not hashed:
            for name in ("write_part", "complete"):
                stack.enter_context(mock.patch.object(manifest, name))

        def save() -> None:
            saved.save(1, state, {})
            saved.wait()

        return seconds(save)


def timed_restore(folder: epath.Path, state: Parameters, compared: bool) -> tuple[float, float]:
    """The opening of a run's folder, in which its newest checkpoint is compared, and the restoring of that."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    shardings = jax.tree.map(lambda x: x.sharding, state)

    def restore() -> None:
        with contextlib.closing(Checkpoints(folder, CheckpointConfig())) as saved:
            jax.block_until_ready(saved.restore(1, shapes, shardings)[0])

    with contextlib.nullcontext() if compared else mock.patch.object(newest, "problems", return_value=[]):
        return seconds(restore)


def hashing(folder: epath.Path) -> dict[str, float]:
    """Seconds for all files of a checkpoint, by as many threads as the library uses."""
    names, found = content_hashes.files_below(folder), {}
    for name, make in HASHES.items():
        with mock.patch.object(xxhash, "xxh3_128", make):
            runs = [seconds(lambda: content_hashes.hash_files(folder, names))[0] for _ in range(3)]
        found[name] = round(statistics.median(runs), 3)
    return found


def summary(name: str, without: list[float], with_it: list[float]) -> dict[str, Any]:
    shares = [after / before - 1 for before, after in zip(without, with_it, strict=True)]
    return {
        f"{name}_seconds_without": round(statistics.median(without), 3),
        f"{name}_seconds_with": round(statistics.median(with_it), 3),
        f"{name}_cost": round(statistics.median(shares), 4),
        f"{name}_costs": [round(min(shares), 4), round(max(shares), 4)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--arrays", type=int, default=16)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    options = parser.parse_args()
    values = round(options.gigabytes * 1e9 / 4 / options.arrays)
    keys = jax.random.split(jax.random.key(0), options.arrays)
    params = {f"array_{n:03}": jax.random.normal(key, (values // 1000, 1000)) for n, key in enumerate(keys)}
    state = Parameters(jax.block_until_ready(params))
    times: dict[str, list[tuple[float, float]]] = {}
    for run in range(options.runs + 1):
        for on in (False, True):
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                folder = epath.Path(name)
                measured = {f"save {on}": timed_save(folder, state, on)}
                if on:
                    # Which comes first changes from run to run.
                    for compared in (True, False) if run % 2 else (False, True):
                        measured[f"restore {compared}"] = timed_restore(folder, state, compared)
                    hashed = hashing(folder / "checkpoints/1") if run == options.runs else {}
            # The first run warms up.
            for what, each in measured.items():
                times.setdefault(what, []).extend([each] if run else [])
    result = provenance(options, jax.devices()[0])
    for name in ("save", "restore"):
        for place, unit in enumerate(("", "_processor")):
            pairs = [[each[place] for each in times[f"{name} {on}"]] for on in (False, True)]
            result |= summary(name + unit, *pairs)
    print(json.dumps(result | {"hashing_seconds": hashed}))


if __name__ == "__main__":
    main()

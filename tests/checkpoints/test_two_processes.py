"""Checkpoints of a run of two processes: each hashes what it has written, and both go on from the same one."""

import json
import os
import socket
import subprocess
import sys

import pytest
from etils import epath

from lmirl_jax import checkpoints, content_hashes

PROGRAM = """
import pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jax.experimental import multihost_utils
from lmirl_jax import content_hashes, sharding
from tests.checkpoints.test_damage import array_file, flip_a_bit, train
run = pathlib.Path(sys.argv[3])
hashed = []
count = content_hashes.content_hash
content_hashes.content_hash = lambda file: hashed.append(str(file)) or count(file)
settings = {"mesh": sharding.make_mesh(data=1, fsdp=2)}
train(run, 4, **settings)
print("hashed", sorted({part for file in hashed for part in file.split("/") if part.startswith("ocdbt")}))
multihost_utils.sync_global_devices("trained")
if jax.process_index() == 0:
    flip_a_bit(run / "checkpoints/4", array_file(run / "checkpoints/4"))
multihost_utils.sync_global_devices("damaged")
train(run, 4, **settings)
"""


@pytest.mark.e2e
def test_both_hash_their_own_and_fall_back_together(tmp_path, repository):
    with socket.socket() as found:
        found.bind(("localhost", 0))
        address = f"localhost:{found.getsockname()[1]}"
    command = [sys.executable, "-c", PROGRAM, address]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(
            [*command, str(index), str(tmp_path / "run")],
            cwd=repository,
            env=environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for index in (0, 1)
    ]
    told = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    hashed = [[line for line in out.splitlines() if line.startswith("hashed")] for out, _ in told]
    assert hashed == [[f"hashed ['ocdbt.process_{index}']"] for index in (0, 1)]
    folder = tmp_path / "run/checkpoints"
    assert sorted(os.listdir(folder)) == ["2", "4", "damaged-4"]
    names = content_hashes.read_hashes(folder / "4")
    assert {name.split("/")[1] for name in names if "/ocdbt" in name} == {
        "ocdbt.process_0",
        "ocdbt.process_1",
    }
    assert not any(checkpoints.problems(epath.Path(folder / step)) for step in ("2", "4"))
    assert "has changed" in told[0][1] and "damaged-4" in told[0][1] and "damaged-4" not in told[1][1]
    lines = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2, 3, 4]

"""One of two processes of four devices each: it trains without a stop, and stopped and resumed; the two must be one, bit by bit.

    python -m tests.training.resume_in_processes ADDRESS INDEX FOLDER KIND...

The whole run of each kind is left in FOLDER, with the digests of the batches that this process took.
"""

import json
import pathlib
import shutil
import sys

import jax


def main(address: str, index: str, folder: str, *kinds: str) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, 2, int(index))
    from jax.experimental import multihost_utils

    from tests.training.kinds import STEPS, Training, assert_bitwise, metrics, stopped_after

    for kind in kinds:
        path = pathlib.Path(folder) / kind
        chosen = Training(kind, path / f"files{index}")
        chosen.base_in(path / "base")
        state, batches, prompts = chosen.run(path / "whole", 8)
        for step in (1, STEPS - 1):
            stopped = path / f"stopped{step}"
            if index == "0":
                stopped_after(step, path / "whole", stopped)
            multihost_utils.sync_global_devices(f"{kind} stopped after {step}")
            again, more, more_prompts = chosen.run(stopped, 8)
            assert_bitwise(again, state)
            assert more == batches[step:] and more_prompts == prompts[len(prompts) - len(more_prompts) :]
            if index == "0":
                assert metrics(stopped) == metrics(path / "whole")
                shutil.rmtree(stopped)
        (path / f"batches{index}.json").write_text(json.dumps(batches))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Writes the parameters of a run's newest checkpoint, rounded to bfloat16, as a run's folder small enough to ship.

    launch/local.sh train --gin_file=gin/runs/number_paths.gin --gin_file=gin/objectives/mle.gin \
        --gin.MODEL_DIR="'/tmp/number_paths'" --gin.TRAIN_STEPS=3000
    launch/local.sh python benchmarks/ship_model.py --run=/tmp/number_paths --folder=tasks/number_paths_model

The parameters stay float32, whose lower bits are then zeros that compress away. The optimizer's state is left out: one starts
from such a folder and cannot resume it.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from lmirl_jax import checkpoints


@flax.struct.dataclass
class Parameters:
    """What is saved: the parameters alone."""

    params: Any
    extra: Any = None


def rounded(leaf: Any) -> np.ndarray:
    return np.asarray(jnp.asarray(leaf).astype(jnp.bfloat16).astype(jnp.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    newest = checkpoints.find_checkpoint(str(asked.run))
    with ocp.PyTreeCheckpointer() as checkpointer:
        params = checkpointer.restore(newest / "state")["params"]
    position = json.loads((newest / "data" / "metadata").read_text())
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    saved = checkpoints.Checkpoints(
        epath.Path(asked.folder.absolute()), checkpoints.CheckpointConfig(asynchronous=False)
    )
    saved.save(checkpoints.step_of(newest), Parameters(jax.tree.map(rounded, params)), position)
    saved.close()
    shutil.copy(asked.run / "config.gin", asked.folder)


if __name__ == "__main__":
    main()

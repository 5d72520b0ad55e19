"""Saves the batch of an update that went wrong: its arrays, and its texts beside them for a reader."""

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from lmirl_jax import files
from lmirl_jax.types import Batch, UserError

FOLDER = "nonfinite"
# More of them hardly tell more, and would fill a disk.
MOST_FILES = 50


@runtime_checkable
class DecodesTexts(Protocol):
    """A training set that gives the texts of its tokens."""

    def decode_inputs(self, tokens: Sequence[int] | np.ndarray) -> str: ...

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str: ...


def save_batch(model_dir: epath.Path, step: int, batch: Batch, data: Any) -> epath.Path | None:
    """Writes MODEL_DIR/nonfinite/step-STEP.npz with the global batch, and step-STEP.jsonl with a line for each example.

    All processes of a run call it together, and the first one writes.

    Args:
        model_dir: the folder of the run.
        step: the number of the update.
        batch: the global batch on the devices.
        data: the training set; without `DecodesTexts`, the lines have no texts.

    Returns:
        The path of the arrays; None where there are `MOST_FILES` already.
    """
    folder = model_dir / FOLDER
    path = folder / f"step-{step}.npz"
    # Every process takes part in this, so it comes before anything that only the first one does.
    rows = _on_host(batch)
    if jax.process_index() != 0:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("step-*.npz"))) >= MOST_FILES and not path.exists():
        return None
    content = io.BytesIO()
    np.savez(content, **{name: array for name, array in vars(rows).items() if array is not None})
    temporary = folder / f".{path.name}.tmp"
    temporary.write_bytes(content.getvalue())
    with files.open_atomic(folder / f"step-{step}.jsonl") as file:
        for example in _examples(rows, data):
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    temporary.replace(path)
    return path


def read_batch(path: str) -> Batch:
    """Reads the arrays that `save_batch` wrote.

    Raises:
        UserError: there is no such file.
    """
    try:
        with np.load(io.BytesIO(files.absolute_path(path).read_bytes())) as arrays:
            return Batch(**dict(arrays))
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--replay={path} is no batch of a run ({error}): name a file MODEL_DIR/{FOLDER}/step-STEP.npz"
        ) from None


def step_of_batch(path: str) -> int:
    """The number of the update whose batch a file holds.

    Raises:
        UserError: the file does not have such a name.
    """
    number = epath.Path(path).name.removeprefix("step-").removesuffix(".npz")
    if not number.isdecimal():
        raise UserError(f"--replay={path} is no batch of a run: name a file MODEL_DIR/{FOLDER}/step-STEP.npz")
    return int(number)


def _on_host(batch: Batch) -> Batch:
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(batch, tiled=True)
    return jax.device_get(batch)


def _examples(rows: Batch, data: Any) -> list[dict[str, Any]]:
    """The examples of each row, with the ids that are no padding."""
    examples = []
    for row in range(len(rows.tokens)):
        for segment in range(1, int(rows.segment_ids[row].max(initial=0)) + 1):
            place = rows.segment_ids[row] == segment
            targets = rows.tokens[row][place]
            example: dict[str, Any] = {"row": row}
            inputs = np.zeros(0, np.int32)
            if rows.prompt_tokens is not None:
                inputs = rows.prompt_tokens[row][rows.prompt_segment_ids[row] == segment]
            if isinstance(data, DecodesTexts):
                example |= {"inputs": data.decode_inputs(inputs), "targets": data.decode(targets)}
            example |= {"input_ids": inputs.tolist(), "target_ids": targets.tolist()}
            # Python's JSON would write NaN, which is no JSON.
            for name in ("weights", "rewards", "labels"):
                array = getattr(rows, name)
                if array is not None:
                    numbers = array[row][place].tolist()
                    example[name] = [x if np.isfinite(x) else str(x) for x in numbers]
            examples.append(example)
    return examples

"""Goes back from a spike of the loss: the file of roll-backs outlives the run, so that what was left out stays left out.

MODEL_DIR/rollbacks.jsonl has a line for each: the checkpoint's step (0 for the start of the run), the step and the loss of the
spike, the median of the losses before, and the position in the data after its batch. The position cannot be computed from the
step any more.
"""

import json
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from lmirl_jax import files
from lmirl_jax.checkpoints import Checkpoints
from lmirl_jax.training.guard import LossSpike
from lmirl_jax.training.loop import Run
from lmirl_jax.types import UserError

FILE = "rollbacks.jsonl"


def record_rollback(run: Run, saved: Checkpoints, spike: LossSpike) -> None:
    """Writes to the file that the run goes back to its newest checkpoint, and leaves out the data up to the spike.

    Raises:
        UserError: the run has gone back too often.
    """
    saved.wait()
    newest, count, most = saved.latest_step() or 0, run.guard.rollbacks, run.guard.config.max_rollbacks
    factor = f"over SPIKE_FACTOR={run.guard.config.spike_factor:g} times the median"
    if count >= most:
        raise UserError(
            f"{spike}, {factor}, and the run has gone back {count} times already (MAX_ROLLBACKS): lower LEARNING_RATE, clip "
            f"gradients (training.adamw.clip_norm) or raise SPIKE_FACTOR, and run again from the checkpoint at step {newest}"
        )
    record = {"checkpoint": newest, "step": spike.step, "loss": spike.loss, "median": spike.median}
    if jax.process_index() == 0:
        updates = spike.step - newest
        rows = updates * run.setting.batch_size
        last = spike.position["batches"].get("next_index")
        which = "" if last is None else f", {last - rows} to {last - 1} in the order of the training set"
        print(
            f"train: warning: {spike}, {factor}: the run goes back to step {newest} and leaves out the data of "
            f"{updates} updates ({rows} rows{which})",
            file=sys.stderr,
            flush=True,
        )
        _write(run, [*_read(run)[:count], record | {"position": spike.position}])
    _wait_for_all()


def leave_out_recorded(run: Run, step: int) -> None:
    """Sets the position behind the data that were left out at this checkpoint; 0 is the start of the run.

    Later lines of the file, of a run that went on from a checkpoint that is no longer the newest, are removed.
    """
    records = _read(run)
    count = known = run.guard.rollbacks
    while count < len(records) and records[count]["checkpoint"] == step:
        count += 1
    # All have read the file before the first process changes it.
    _wait_for_all()
    if count > known:
        run.set_position(records[count - 1]["position"])
        run.guard.rollbacks = count
    if count < len(records) and jax.process_index() == 0:
        _write(run, records[:count])


def _read(run: Run) -> list[dict[str, Any]]:
    path = run.model_dir / FILE
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(run: Run, records: list[dict[str, Any]]) -> None:
    with files.open_atomic(run.model_dir / FILE) as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _wait_for_all() -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("lmirl rollbacks")

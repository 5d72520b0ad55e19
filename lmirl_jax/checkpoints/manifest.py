"""The content hashes of a checkpoint: made while it is saved, by all processes, and compared before it is used."""

import json

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from lmirl_jax import content_hashes
from lmirl_jax.checkpoints.folders import finished_steps, step_of
from lmirl_jax.types import UserError

# The files in which the processes leave the hashes of what they have written, until the checkpoint is complete.
PART = "content_hashes_of_process_"
# A quick comparison leaves out larger files: those hold arrays, and no description of them. An inner node of a database of
# tensorstore has 8 MiB at most.
QUICK = 2**24
# The bytes of the text about damage that each process sends to the others.
TEXT = 2**13


def write_part(folder: epath.Path, written: epath.Path, name: str) -> None:
    """Hashes the files that this process has written, for `complete`.

    Args:
        folder: the folder of the checkpoint, which is not complete.
        written: the folder with the files, as it is called now.
        name: the path that it will have in the checkpoint.
    """
    if not written.is_dir():
        return
    entries = content_hashes.hash_files(written, content_hashes.files_below(written))
    part = folder / f"{PART}{jax.process_index()}.json"
    part.write_text(json.dumps({f"{name}/{file}": entry for file, entry in entries.items()}))


def complete(folder: epath.Path) -> None:
    """Joins the parts of all processes, hashes the other files, and writes the hashes of the checkpoint."""
    parts = [child for child in folder.iterdir() if child.name.startswith(PART)]
    known: content_hashes.Entries = {}
    for part in parts:
        known |= {name: tuple(entry) for name, entry in json.loads(part.read_text()).items()}
        part.unlink()
    content_hashes.write_hashes(folder, known)


def problems(checkpoint: epath.Path, quick: bool = False) -> list[str]:
    """All that is wrong with a checkpoint, a line each, which begins with the file; every process must call it.

    Each process compares a share of the files, and all get the same lines.

    Args:
        checkpoint: the folder of the checkpoint.
        quick: whether the contents of large files, which hold nothing but arrays, are left out.
    """
    index, count = jax.process_index(), jax.process_count()
    try:
        entries = content_hashes.read_hashes(checkpoint)
        share = dict(list(entries.items())[index::count])
        found = content_hashes.differences(checkpoint, share, QUICK if quick else None)
        if index == 0:
            found += content_hashes.strays(checkpoint, entries)
    except (OSError, ValueError) as error:
        found = [content_hashes.unreadable(error)]
    return found if count == 1 else _joined(found)


def _joined(found: list[str]) -> list[str]:
    """The lines of all processes, without those that two have; of each process as many as fit into a message."""
    message = np.zeros(TEXT, np.uint8)
    while len(text := json.dumps(found).encode()) > TEXT:
        found = found[: len(found) // 2]
    message[: len(text)] = np.frombuffer(text, np.uint8)
    received = np.asarray(multihost_utils.process_allgather(message)).reshape(-1, TEXT)
    lines = [line for row in received for line in json.loads(row.tobytes().rstrip(b"\0"))]
    return list(dict.fromkeys(lines))


def check(checkpoint: epath.Path, quick: bool = False) -> None:
    """Raises a UserError where a checkpoint is damaged; every process must call it. The arguments are those of `problems`."""
    found = problems(checkpoint, quick)
    if found:
        raise damaged(checkpoint, found)


def note_problems(checkpoint: epath.Path) -> list[str]:
    """What is wrong with the files that say what a checkpoint is, which are few and small; any process may call it alone."""
    try:
        entries = content_hashes.read_hashes(checkpoint)
    except (OSError, ValueError) as error:
        return [content_hashes.unreadable(error)]
    notes = {name: entry for name, entry in entries.items() if _is_note(name)}
    return content_hashes.differences(checkpoint, notes)


def check_notes(checkpoint: epath.Path) -> None:
    """Raises a UserError where `note_problems` has any."""
    found = note_problems(checkpoint)
    if found:
        raise damaged(checkpoint, found)


def _is_note(name: str) -> bool:
    """Whether a file lies in the folder of the checkpoint or of an item; the databases of arrays lie deeper."""
    return name.count("/") <= 1 and not name.endswith("/")


def damaged(checkpoint: epath.Path, found: list[str]) -> UserError:
    """The error for a checkpoint that is refused, which names the newest whole one before it.

    Args:
        checkpoint: its folder.
        found: its problems.
    """
    what = content_hashes.describe(found)
    return UserError(f"the checkpoint {checkpoint} is damaged: {what}: {remedy(checkpoint)}")


def remedy(checkpoint: epath.Path) -> str:
    """What to do where a checkpoint is damaged: which one to use instead."""
    before = _whole_before(checkpoint)
    if before is not None:
        return f"name {before}, the newest whole one before it"
    return "no whole one lies before it: copy it again from where it is whole"


def _whole_before(checkpoint: epath.Path) -> epath.Path | None:
    if not checkpoint.name.isdigit():
        return None
    for step in reversed(finished_steps(checkpoint.parent)[0]):
        if step_of(step) < step_of(checkpoint) and not content_hashes.problems(step):
            return step
    return None

"""How Orbax gives a checkpoint its name: not before the content hashes of its files are written.

So a checkpoint has its hashes from the moment that it is there, and Orbax deletes older ones only after that.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.path import atomicity, atomicity_defaults

from lmirl_jax.checkpoints import manifest

# The item with the arrays, and the folder in it for those of one process.
STATE, OF_PROCESS = "state", "ocdbt.process_"
# The end of names that Orbax does not take for those of checkpoints.
TEMPORARY = atomicity.TMP_DIR_SUFFIX


class RenamedWithHashes(atomicity.AtomicRenameTemporaryPath):
    """A folder on a disk: Orbax finishes it under another name, then it is hashed, and then it gets its own."""

    @classmethod
    def from_final(cls, final_path: epath.Path, **options: Any) -> atomicity.AtomicRenameTemporaryPath:
        if not _is_step(final_path):
            # Items get their names as Orbax does it.
            return atomicity.AtomicRenameTemporaryPath.from_final(final_path, **options)
        temporary, hashed = (
            final_path.with_name(final_path.name + TEMPORARY + end) for end in ("", ".hashed")
        )
        options.pop("snapshot_type", None)
        return cls(temporary, hashed, **options)

    def get_final(self) -> epath.Path:
        hashed = super().get_final()
        return hashed.with_name(hashed.name.partition(TEMPORARY)[0])

    async def create(self) -> epath.Path:
        finished = super().get_final()
        if await asyncio.to_thread(finished.exists):
            # A run was killed before it got its name. Orbax removes what lies under the first name itself.
            await asyncio.to_thread(finished.rmtree)
        return await super().create()

    async def finalize(self) -> None:
        await super().finalize()
        finished = super().get_final()
        await asyncio.to_thread(manifest.complete, finished)
        await asyncio.to_thread(finished.rename, self.get_final())


class InPlaceWithHashes(atomicity.CommitFileTemporaryPath):
    """A folder in a bucket, which has no renaming: its hashes, written last, say that it is finished."""

    async def finalize(self) -> None:
        await super().finalize()
        if _is_step(self.get_final()):
            await asyncio.to_thread(manifest.complete, self.get_final())


def temporary_path_class(folder: epath.Path) -> type[atomicity.TemporaryPathBase]:
    """The class of these two for the checkpoints in a folder."""
    default = atomicity_defaults.get_default_temporary_path_class(folder)
    return InPlaceWithHashes if issubclass(default, atomicity.CommitFileTemporaryPath) else RenamedWithHashes


def _is_step(path: epath.Path) -> bool:
    return path.name.isdigit()


class StateHandler(ocp.StandardCheckpointHandler):
    """Saves arrays; each process then hashes those that it has written, while others may still write theirs."""

    async def async_save(self, directory: Any, *args: Any, **kwargs: Any) -> list[Any]:
        futures = await super().async_save(directory, *args, **kwargs)
        return [_HashedAfterwards(futures or [], epath.Path(directory))]


@ocp.args.register_with_handler(StateHandler, for_save=True)
class SaveState(ocp.args.StandardSave):
    """The state to save."""


@ocp.args.register_with_handler(StateHandler, for_restore=True)
class RestoreState(ocp.args.StandardRestore):
    """The shapes and shardings of the state to restore."""


@dataclasses.dataclass(frozen=True)
class _HashedAfterwards:
    """Waits until a process has written its arrays, then hashes them."""

    futures: Sequence[Any]
    folder: epath.Path

    def result(self, timeout: float | None = None) -> None:
        for future in self.futures:
            future.result(timeout)
        own = f"{OF_PROCESS}{jax.process_index()}"
        manifest.write_part(self.folder.parent, self.folder / own, f"{STATE}/{own}")

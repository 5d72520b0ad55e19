"""Checkpoints by their name on the Hugging Face hub: from the cache on this machine, else downloaded."""

import dataclasses
import pathlib
import re

from lmirl_jax.types import UserError

# ORGANISATION/NAME, and a branch, tag or commit behind an @.
NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
# What a checkpoint is made of, without weights in other formats.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A revision of a checkpoint on this machine.

    Args:
        folder: its folder in the cache.
        name: its name with the commit, which stands for the same files for ever.
    """

    folder: pathlib.Path
    name: str


def is_name(path: str) -> bool:
    """Whether a path is a name on the hub: of that form, and no file or folder here."""
    return NAME.fullmatch(str(path)) is not None and not pathlib.Path(path).exists()


def snapshot(name: str) -> Snapshot:
    """Finds a checkpoint of the hub in the cache, or downloads it.

    Args:
        name: such as 'google/flan-t5-base' or 'google/flan-t5-base@main'.

    Raises:
        UserError: it is not in the cache and cannot be downloaded.
    """
    found = NAME.fullmatch(name)
    assert found is not None
    repository, revision = found["repository"], found["revision"]
    try:
        import huggingface_hub
    except ImportError:
        raise UserError(
            f"no folder {name} here, and to take it from the Hugging Face hub needs pip install 'lmirl_jax[hub]'"
        ) from None
    try:
        folder = huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES))
    except Exception as error:
        # The library raises exceptions of many classes, of its own and of those that it uses.
        at = f" --revision {revision}" if revision else ""
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"no folder {name} here, and the hub gave none ({type(error).__name__}: {reason}): check the name, or on a machine "
            f"with network run `hf download {repository}{at}` and name the folder that it prints"
        ) from None
    return Snapshot(pathlib.Path(folder), f"{repository}@{pathlib.Path(folder).name}")

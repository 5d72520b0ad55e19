"""Checkpoints by their name on the Hugging Face hub: from the cache on this machine, else downloaded."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from lmirl_jax.types import UserError

# ORGANISATION/NAME, and a branch, tag or commit behind an @. A path such as ../run is none.
NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
# What a checkpoint is made of, without weights in other formats.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
# The seconds that the hub has for its first answer. The library itself would wait for ever behind a firewall that drops packets.
TIMEOUT = 10.0


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
    return NAME.fullmatch(str(path)) is not None and not os.path.exists(path)


def parts(path: str) -> tuple[str, str | None]:
    """The repository and the commit of a `Snapshot.name`; of any other path itself, and None."""
    repository, _, commit = path.rpartition("@")
    return (repository, commit) if repository and COMMIT.fullmatch(commit) else (path, None)


def snapshot(name: str) -> Snapshot:
    """Finds a checkpoint of the hub in the cache, or downloads it.

    A commit that is in the cache needs no network. For a branch or a tag the hub is asked first, and where it does not answer,
    the cache has the last word.

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
            f"no folder {name} in {os.getcwd()}: check the path; or if it is a name on the Hugging Face hub, pip install "
            "'lmirl_jax[hub]'"
        ) from None
    get = functools.partial(
        huggingface_hub.snapshot_download, repository, revision=revision, allow_patterns=list(FILES)
    )
    try:
        folder = _find(huggingface_hub, get, repository, revision)
    except Exception as error:
        # The library raises exceptions of many classes, of its own and of those that it uses.
        at = f" --revision {revision}" if revision else ""
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"no folder {name} in {os.getcwd()}, and none of this name from the Hugging Face hub or its cache "
            f"({type(error).__name__}: {reason}): check the path or the name, or on a machine with network run "
            f"`hf download {repository}{at}` and name the folder that it prints"
        ) from None
    if not any(folder.glob("*.safetensors")):
        script = "import sys; from transformers import AutoModelForSeq2SeqLM as M, AutoTokenizer as T; "
        script += "[C.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]) for C in (M, T)]"
        raise UserError(
            f"{name} has no safetensors in {folder}: run `hf download {repository}` again; or if the hub has other weights only "
            "(which are not read, as a pickle can run code), run where transformers is installed "
            f'python -c "{script}" {repository} FOLDER, and name FOLDER'
        )
    return Snapshot(folder, f"{repository}@{folder.name}")


def _find(library: Any, get: Callable[..., str], repository: str, revision: str | None) -> pathlib.Path:
    """The folder of a revision in the cache, into which it is downloaded where it is not there and the hub answers."""
    cached = functools.partial(get, local_files_only=True)
    try:
        if revision is not None and COMMIT.fullmatch(revision):
            # A commit never changes, so that the one in the cache is as good as the hub's.
            with contextlib.suppress(Exception):
                return pathlib.Path(cached())
        library.HfApi().repo_info(repository, revision=revision, timeout=TIMEOUT)
    except Exception as error:
        # Whatever keeps the hub from answering is the reason to tell, should the cache not have it either.
        with contextlib.suppress(Exception):
            return pathlib.Path(cached())
        raise error
    return pathlib.Path(get())

"""Tells checkpoints of other libraries apart, wherever they lie."""

import hashlib
import itertools
from collections.abc import Iterator

from etils import epath

from lmirl_jax.interop.pretrained import config_folder

# The bytes at the begin and at the end of each file that are read.
SAMPLE = 2**16


def identity(path: epath.Path) -> str:
    """A digest in twelve letters of a checkpoint: of the sizes of its files, and of parts of their contents.

    Args:
        path: the checkpoint's folder or file.
    """
    digest = hashlib.sha256()
    # Of adapters of PEFT, the base too.
    folders = dict.fromkeys([path, config_folder(path)])
    for name, file in itertools.chain.from_iterable(map(_files, folders)):
        digest.update(name.encode())
        with file.open("rb") as opened:
            digest.update(opened.read(SAMPLE))
            size = opened.seek(0, 2)
            opened.seek(max(0, size - SAMPLE))
            digest.update(opened.read(SAMPLE))
        digest.update(str(size).encode())
    return digest.hexdigest()[:12]


def _files(path: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """The files that hold the model, in an order that depends on their names only."""
    if path.is_file():
        yield "checkpoint", path
        return
    for child in sorted(path.iterdir(), key=lambda child: child.name):
        if child.is_dir():
            # What T5X keeps of its optimizer and its data is no part of the model.
            if child.name.startswith("target.") or child.name == "state":
                for name, file in _files(child):
                    yield f"{child.name}/{name}", file
        elif child.name in ("config.json", "checkpoint") or child.suffix in (".safetensors", ""):
            yield child.name, child

"""Content hashes of the files in a folder: written last, in a file beside them, and compared when the folder is read.

`content_hashes.json` has the size and the hash of every other file, and a hash of these entries, so that damage to itself is
found too. The hash is XXH3 with 128 bits: it finds every kind of damage, as fast as memory is read; it stops no forger.
"""

import concurrent.futures
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import xxhash
from etils import epath

from lmirl_jax import files

NAME = "content_hashes.json"
# Read at a time: hashing is as fast as reading from here on.
CHUNK = 2**20
# Two threads saturate the memory of small machines; more of them keep network file systems busy.
THREADS = 4

# By the path of a file in its folder, its size in bytes and its hash. An empty folder ends in '/' and has the size 0.
Entries = dict[str, tuple[int, str]]


def content_hash(file: epath.PathLike) -> tuple[int, str]:
    """The size of a file in bytes, and the XXH3 hash of its content, 128 bits in hexadecimal digits."""
    digest, size = xxhash.xxh3_128(), 0
    with epath.Path(file).open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def files_below(folder: epath.PathLike) -> list[str]:
    """The paths of all files below a folder, and of the empty folders, which end in '/'; without the hashes themselves."""
    return sorted(name for name in _walk(epath.Path(folder), "") if name != NAME)


def _walk(folder: epath.Path, path: str) -> Iterator[str]:
    children = list(folder.iterdir())
    if not children and path:
        yield path
    for child in children:
        if child.is_dir():
            yield from _walk(child, f"{path}{child.name}/")
        else:
            yield f"{path}{child.name}"


def hash_files(folder: epath.PathLike, names: Iterable[str]) -> Entries:
    """The entries of files in a folder, by several threads."""
    names, root = list(names), epath.Path(folder)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: (0, "") if name.endswith("/") else content_hash(root / name), names)
        return dict(zip(names, found, strict=True))


def write_hashes(folder: epath.PathLike, known: Mapping[str, tuple[int, str]] | None = None) -> None:
    """Writes the hashes of a folder that is complete.

    Args:
        folder: the folder.
        known: entries that were made before, of files that have not changed since.
    """
    entries = dict(known or {})
    entries |= hash_files(folder, [name for name in files_below(folder) if name not in entries])
    with files.open_atomic(epath.Path(folder) / NAME) as file:
        json.dump({"files": entries, "hash": _hash_of_entries(entries)}, file, sort_keys=True)


def read_hashes(folder: epath.PathLike) -> Entries:
    """The entries of a folder.

    Raises:
        FileNotFoundError: it has none.
        ValueError: their file is damaged.
    """
    text = (epath.Path(folder) / NAME).read_bytes()
    try:
        read = json.loads(text.decode("utf-8"))
        entries: Entries = {name: (int(size), str(digest)) for name, (size, digest) in read["files"].items()}
        whole = read["hash"] == _hash_of_entries(entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole, entries = False, {}
    if not whole:
        raise ValueError(f"{NAME} is damaged")
    return entries


def differences(
    folder: epath.PathLike, entries: Mapping[str, tuple[int, str]], most: int | None = None
) -> list[str]:
    """What distinguishes files from their entries, a line each, which begins with the file.

    Args:
        folder: the folder.
        entries: the entries of the files to compare.
        most: of larger files than this many bytes only the sizes are compared; None to compare all contents.
    """
    root = epath.Path(folder)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        compare = functools.partial(_difference, root, most)
        lines = pool.map(compare, entries.keys(), entries.values())
        return [line for line in lines if line is not None]


def strays(folder: epath.PathLike, entries: Mapping[str, tuple[int, str]]) -> list[str]:
    """The files and empty folders that have no entry, a line each, which begins with the file.

    A folder is not told of where entries lie below it: then its files are missing.
    """
    above = {name[: end + 1] for name in entries for end, letter in enumerate(name) if letter == "/"}
    unknown = [name for name in files_below(folder) if name not in entries and name not in above]
    return [
        f"{name} is an empty folder" if name.endswith("/") else f"{name} does not belong there"
        for name in unknown
    ]


def problems(folder: epath.PathLike) -> list[str]:
    """All that is wrong with a folder, a line each, which begins with the file; none where every file is as it was written."""
    try:
        entries = read_hashes(folder)
    except (OSError, ValueError) as error:
        return [unreadable(error)]
    return differences(folder, entries) + strays(folder, entries)


def unreadable(error: OSError | ValueError) -> str:
    """The line of `problems` for hashes that `read_hashes` could not read."""
    if isinstance(error, FileNotFoundError):
        return f"{NAME} is missing"
    return f"{NAME} cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def describe(found: list[str]) -> str:
    """Problems as a part of one line: the first three, and the number of the others."""
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _difference(root: epath.Path, most: int | None, name: str, entry: tuple[int, str]) -> str | None:
    size, digest = entry
    if name.endswith("/"):
        return None
    file = root / name
    try:
        found = file.stat().length
        if found == size and (most is None or size <= most):
            found, content = content_hash(file)
            if found == size and content != digest:
                return f"{name} has changed (content hash {content}, not {digest})"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return None if found == size else f"{name} has {found:,} bytes, not {size:,}"


def _hash_of_entries(entries: Mapping[str, Any]) -> str:
    text = json.dumps({name: list(entry) for name, entry in entries.items()}, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))

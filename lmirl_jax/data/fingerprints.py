"""Describes everything that determines a split's tokens as one JSON value, so that equal values stand for equal tokens.

Code is described by its source text: the module of every function that a task names, and all of the user's modules that
these import. What code reads at run time, such as a file that a FunctionDataSource opens, is not
included, unless its path is an argument.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
import marshal
import os
import pathlib
import re
import sys
import sysconfig
import types
from importlib import metadata
from typing import Any

from lmirl_jax.data import tfds_folder, vocabularies
from lmirl_jax.data.local_files import LocalFiles, SplitSources
from lmirl_jax.data.seqio_library import seqio

_INSTALLED = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# The folders of libraries, also of another environment on this one's path.
_PACKAGES = {"site-packages", "dist-packages"}


def split_fingerprint(task: seqio.Task, split: str, format_version: int) -> str:
    """The hash that names the tokens of a task's split on disk.

    Raises:
        UserError: the split's TFDS data set is not there.
    """
    described = {
        "format": format_version,
        "seqio": metadata.version("seqio"),
        "task": task.name,
        "split": split,
        "features": {
            key: [
                *_vocabulary(feature.vocabulary),
                feature.add_eos,
                feature.dtype.name,
            ]
            for key, feature in task.output_features.items()
            if hasattr(feature, "vocabulary")
        },
        "source": _source(task, split),
        "preprocessors": [_describe(preprocessor, ()) for preprocessor in task.preprocessors],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _vocabulary(vocabulary: Any) -> list[str]:
    """The fingerprint; the same vocabulary may also put the special tokens of a prompt around a text."""
    prompts = ["prompts"] if getattr(vocabulary, "for_prompts", False) else []
    return [vocabularies.vocabulary_fingerprint(vocabulary), *prompts]


def _source(task: seqio.Task, split: str) -> Any:
    if task.supports_caching and task.cache_dir:
        return {"cache": sorted(_file(path.path) for path in os.scandir(task.cache_dir) if path.is_file())}
    source = task.source
    if isinstance(source, SplitSources):
        source = source.sources[split]
    if isinstance(source, seqio.TfdsDataSource):
        return {"tfds": tfds_folder.describe_tfds(task.name, source, split)}
    described = {"class": _code(type(source)), "fields": _describe(vars(source), ())}
    if isinstance(source, (seqio.FileDataSource, LocalFiles)):
        described["files"] = [_file(path) for path in source.list_shards(split)]
    return described


def _file(path: str) -> list[Any]:
    if not os.path.isfile(path):
        return [path]
    stat = os.stat(path)
    return [path, stat.st_size, stat.st_mtime_ns]


def _describe(value: Any, above: tuple[int, ...]) -> Any:
    """A JSON value that differs if the value would behave differently; `above` holds the ids of the enclosing values."""
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, (str, bytes)):
        return _file(value) if isinstance(value, str) and os.path.isfile(value) else repr(value)
    if id(value) in above:
        return "itself"
    above = (*above, id(value))
    if isinstance(value, functools.partial):
        return ["partial", *(_describe(part, above) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, dict):
        return ["dict", sorted(([str(k), _describe(v, above)] for k, v in value.items()), key=json.dumps)]
    if isinstance(value, (list, tuple)):
        return ["list", *(_describe(item, above) for item in value)]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted((_describe(item, above) for item in value), key=json.dumps)]
    if isinstance(value, (seqio.Vocabulary, vocabularies.Vocabulary)):
        return ["vocabulary", *_vocabulary(value)]
    if isinstance(value, types.ModuleType):
        return ["module", value.__name__]
    if isinstance(value, types.MethodType):
        return ["method", value.__name__, _describe(value.__self__, above)]
    if isinstance(value, types.FunctionType):
        return _function(value, above)
    if isinstance(value, type) or inspect.isbuiltin(value):
        return ["code", _code(value)]
    return _object(value, above)


def _function(function: types.FunctionType, above: tuple[int, ...]) -> Any:
    cells = [_describe(cell.cell_contents, above) for cell in function.__closure__ or () if _has_value(cell)]
    defaults = [_describe(function.__defaults__, above), _describe(function.__kwdefaults__, above)]
    # The line distinguishes two lambdas of one file. Functions of a notebook have no file, only bytecode.
    where = function.__code__.co_firstlineno
    if not getattr(sys.modules.get(function.__module__), "__file__", None):
        where = hashlib.sha256(marshal.dumps(function.__code__)).hexdigest()
    return ["function", _code(function), where, cells, defaults]


def _has_value(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _object(value: Any, above: tuple[int, ...]) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        fields = getattr(value, "__dict__", None)
    if fields is None:
        # A memory address would give every process another fingerprint.
        return ["object", _code(type(value)), re.sub(r" at 0x[0-9a-f]+", "", repr(value))]
    return ["object", _code(type(value)), _describe(dict(fields), above)]


def _code(value: Any) -> list[Any]:
    module = getattr(value, "__module__", None) or "builtins"
    return [module, getattr(value, "__qualname__", ""), _module_hashes(module)]


def _module_hashes(name: str) -> list[list[str]]:
    """The names and source hashes of a module and of all modules outside of site-packages to which it refers."""
    seen: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        module = sys.modules.get(current)
        file = getattr(module, "__file__", None)
        if current in seen or not file or (current != name and _is_installed(file)):
            continue
        with open(file, "rb") as source:
            seen[current] = [current, hashlib.file_digest(source, "sha256").hexdigest()]
        for value in vars(module).values():
            other = (
                value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
            )
            if isinstance(other, str):
                waiting.append(other)
    return sorted(seen.values())


def _is_installed(file: str) -> bool:
    return file.startswith(_INSTALLED) or not _PACKAGES.isdisjoint(pathlib.PurePath(file).parts)

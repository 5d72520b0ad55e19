"""The folders of prepared data: that of TFDS, and the caches of SeqIO. Nothing here downloads."""

import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.types import UserError

_data_dir: str | None = None


def set_tfds_data_dir(path: str | None) -> None:
    """Makes every TFDS source read from the folder, like `--tfds_data_dir` in T5X; None keeps the default of TFDS.

    Raises:
        UserError: there is no such folder.
    """
    global _data_dir
    if path is not None and "://" not in path:
        path = str(_folder(path, "--tfds_data_dir"))
    _data_dir = path
    seqio.set_tfds_data_dir_override(path)


def add_cache_dirs(paths: Sequence[str]) -> None:
    """Looks in these folders for tasks that `seqio_cache_tasks` wrote, like `--seqio_additional_cache_dirs` in T5X.

    Raises:
        UserError: there is no such folder.
    """
    remote = [path for path in paths if "://" in path]
    local = [str(_folder(path, "--seqio_additional_cache_dirs")) for path in paths if "://" not in path]
    seqio.add_global_cache_dirs(remote + local)


def data_folder() -> epath.Path:
    """The folder of all data sets: that of `set_tfds_data_dir`, else the default of TFDS."""
    return epath.Path(_data_dir or str(tfds.core.constants.DATA_DIR))


def describe_tfds(task: str, source: seqio.TfdsDataSource, split: str) -> dict[str, object]:
    """Describes the TFDS data set of a split: its name, version, files and their sizes; `task` is the name in errors.

    Raises:
        UserError: the data set is missing. It is not downloaded, because on a pod each host would download it.
    """
    loader: Any = source.tfds_dataset
    if not loader.tfds_splits and _data_dir is not None:
        # A loader that was used before keeps the first folder that it was given.
        loader.override_data_dir(_data_dir)
    name, data_dir = loader.get_split_params(split)
    folder = data_dir or str(tfds.core.constants.DATA_DIR)
    try:
        if name:
            parsed, kwargs = tfds.core.naming.parse_builder_name_kwargs(name)
            builder = tfds.core.read_only_builder.builder_from_files(str(parsed), data_dir=folder, **kwargs)
        else:
            builder = tfds.builder_from_directory(folder)
    except (tfds.core.DatasetNotFoundError, FileNotFoundError) as error:
        raise UserError(
            f"task {task}: no TFDS data set {name} in {folder}; set --tfds_data_dir to the folder that holds "
            f"{str(name).replace(':', '/')}, or prepare it with tfds.load({name!r}, data_dir=..)"
        ) from error
    files = sorted(path for path in builder.data_path.iterdir() if path.is_file())
    return {
        "name": str(builder.info.full_name),
        "split": str(loader._map_split(split)),
        "files": [[path.name, path.stat().length] for path in files],
    }


def _folder(path: str, flag: str) -> pathlib.Path:
    folder = pathlib.Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"no folder at {path}: {flag} must name an existing folder")
    return folder

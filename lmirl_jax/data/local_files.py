"""Sources of SeqIO tasks over the files of a data set, in the layout in which its authors publish them."""

import functools
import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

# Not by `seqio_library`, which may be half imported: tasks are registered at the end of the import of SeqIO.
import seqio
import tensorflow as tf
from etils import epath

from lmirl_jax.types import UserError

Row = Mapping[str, str | Sequence[str]]
Find = Callable[[str], Sequence[epath.Path]]


class LocalFiles(seqio.DataSource):
    """A source whose splits are files of moderate size, which are read whole.

    Args:
        find: returns the paths of a split's files; see `in_data_folder`.
        read: returns the rows of these files. All have the same keys, with a text or a list of texts for each.
        splits: the names of the splits.
    """

    def __init__(
        self, find: Find, read: Callable[[Sequence[epath.Path]], Sequence[Row]], splits: Iterable[str]
    ):
        super().__init__(splits=splits)
        self._find, self._read = find, read

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split; SeqIO divides a split by them, and these must be read together, so only the first counts."""
        return self.files(split)[:1]

    def files(self, split: str) -> list[str]:
        """All files of a split.

        Raises:
            UserError: one of them is missing.
        """
        return [str(path) for path in self._find(split)]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The rows of a split as a `tf.data.Dataset`."""
        if shard_info is not None and shard_info.num_shards > 1:
            raise ValueError("files of a data set are read whole: use tf.data.Dataset.shard")
        rows = self._read([epath.Path(path) for path in self.files(split)])
        columns = {key: _column([row[key] for row in rows]) for key in rows[0]} if rows else {}
        dataset = tf.data.Dataset.from_tensor_slices(columns)
        return dataset.shuffle(max(len(rows), 1), seed=seed) if shuffle else dataset


class SplitSources(seqio.DataSource):
    """A source that reads each split from a source of its own; `sources` has them by the name of the split."""

    def __init__(self, sources: Mapping[str, seqio.DataSource]):
        super().__init__(splits=sources)
        self.sources = dict(sources)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return self.sources[split].list_shards(split)

    def num_input_examples(self, split: str) -> int | None:
        return self.sources[split].num_input_examples(split)

    def get_dataset(self, split: str = "train", *args: Any, **kwargs: Any) -> tf.data.Dataset:
        return self.sources[split].get_dataset(split, *args, **kwargs)


def in_data_folder(name: str, files: Mapping[str, Sequence[str]]) -> Find:
    """Finds the files of a data set in the folder `name` of `--tfds_data_dir`, plain or with `.gz` after their names.

    Args:
        name: the name of the folder.
        files: the names of the files of each split.
    """
    return functools.partial(_find_in_data_folder, name=name, files=files)


def _find_in_data_folder(split: str, *, name: str, files: Mapping[str, Sequence[str]]) -> list[epath.Path]:
    from lmirl_jax.data import tfds_folder

    folder = tfds_folder.data_folder() / name
    return [_existing(folder, file) for file in files[split]]


def _existing(folder: epath.Path, file: str) -> epath.Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"no file {file} (or {file}.gz) in {folder}: put the files of the data set there, or set --tfds_data_dir to the folder "
        f"that holds {folder.name}/"
    )


def read_jsonl(paths: Sequence[epath.Path], keys: Sequence[str]) -> list[Row]:
    """The rows of JSONL files, with these keys alone.

    Raises:
        UserError: a line is not JSON, or lacks a key.
    """
    rows: list[Row] = []
    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            try:
                row = json.loads(line)
                rows.append({key: row[key] for key in keys})
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{path}, line {number}: it is no JSON object with {', '.join(keys)} ({error!r}); download the file again"
                ) from error
    return rows


def read_aligned(paths: Sequence[epath.Path], source: str, targets: str) -> list[Row]:
    """The rows of texts that are aligned line by line: the first file is the source, the others are references.

    Args:
        paths: the files.
        source, targets: the keys of a row; the second has a list.

    Raises:
        UserError: the files differ in their number of lines.
    """
    columns = [_lines(path) for path in paths]
    counts = {str(path): len(lines) for path, lines in zip(paths, columns, strict=True)}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in counts.items())
        raise UserError(
            f"texts that are aligned line by line differ in their lines: {listed}; download them again"
        )
    return [{source: first, targets: others} for first, *others in zip(*columns, strict=True)]


def _lines(path: epath.Path) -> list[str]:
    """The lines of a text file, which may be compressed. Only newlines end them: texts hold other separators of lines."""
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _column(values: list[Any]) -> tf.Tensor | tf.RaggedTensor:
    if isinstance(values[0], str):
        return tf.constant(values, tf.string)
    return tf.ragged.constant(values, ragged_rank=1, dtype=tf.string)

"""A split's tokens on disk: written once as ArrayRecord under a hash of all that determines them, read by index.

A folder of the cache holds one split of one task:

    examples.array_record   a record an example: its tokens, then its other features as JSON
    lengths.npy             [n, 2] token counts of inputs and targets, EOS included: what would be truncated shows at once
    info.json               how many examples, how many targets lack a final EOS, what the vocabulary cannot hold of the texts,
                            which keys of a file's rows are not read, and a hash of all tokens and weights
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from array_record.python import array_record_module
from jaxtyping import Int64

from lmirl_jax.data import fingerprints
from lmirl_jax.data.jsonl import WEIGHT, JsonlSource, check_weight
from lmirl_jax.data.mixture_or_task import FEATURES
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.data.texts import kept_text
from lmirl_jax.data.vocabularies import as_vocabulary
from lmirl_jax.data.vocabulary_losses import Losses
from lmirl_jax.types import UserError

FORMAT_VERSION = 2
# Preprocessors that draw random numbers draw the same ones on every host.
SEED = 42

_log = logging.getLogger(__name__)


class Example(NamedTuple):
    """One tokenised example, untrimmed, and its features that are no tokens (texts, numbers and lists of them)."""

    inputs: np.ndarray
    targets: np.ndarray
    features: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Records:
    """A split on disk; `source` reads its records by index, for `decode_record`."""

    folder: pathlib.Path
    source: grain.sources.ArrayRecordDataSource
    lengths: Int64[np.ndarray, "examples 2"]
    content: str
    without_eos: int
    losses: dict[str, Losses]
    unread: dict[str, int]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def weighted(self) -> bool:
        """Whether examples have weights: all of a split have the same features."""
        return WEIGHT in decode_example(self.source[0]).features


def tokenized_records(task: seqio.Task, split: str, cache_dir: str | None = None) -> Records:
    """The tokens of a split, from the cache or written there first.

    SeqIO runs with no sequence length, so that EOS is appended to the whole and trimming, later, shows. Of two
    processes that write at once the first to finish wins.

    Args:
        task: a SeqIO task.
        split: one of its splits.
        cache_dir: default `$LMIRL_CACHE_DIR`, else `~/.cache/lmirl_jax/examples`.

    Raises:
        UserError: no such split, no data, an empty split, a weight that is no number of 0 or more, nothing but weights of
            0, or a cache folder that cannot be written.
    """
    if split not in task.splits:
        raise UserError(f"task {task.name} has no split {split!r}; it has {', '.join(sorted(task.splits))}")
    if task.requires_caching and not task.cache_dir:
        raise UserError(
            f"task {task.name} must be cached with seqio_cache_tasks first: name its folder with "
            "--seqio_additional_cache_dirs"
        )
    root = cache_folder(cache_dir)
    key = fingerprints.split_fingerprint(task, split, FORMAT_VERSION)
    folder = root / f"{task.name.replace(':', '_')}-{split}-{key[:32]}"
    records = _open(folder)
    if records is None:
        _write_folder(task, split, folder)
        records = _open(folder)
    if records is None:
        raise UserError(
            f"the examples in {folder} cannot be read back: free disk space and delete that folder"
        )
    return records


def cache_folder(cache_dir: str | None = None) -> pathlib.Path:
    """The folder that holds the cache: the one given, else `$LMIRL_CACHE_DIR`, else `~/.cache/lmirl_jax/examples`."""
    return pathlib.Path(
        cache_dir or os.environ.get("LMIRL_CACHE_DIR") or "~/.cache/lmirl_jax/examples"
    ).expanduser()


def decode_record(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The inputs and targets of a record."""
    n, m = np.frombuffer(record, "<i4", 2)
    tokens = np.frombuffer(record, "<i4", n + m, offset=8)
    return tokens[:n], tokens[n:]


def decode_example(record: bytes) -> Example:
    """All of a record."""
    inputs, targets = decode_record(record)
    return Example(inputs, targets, json.loads(record[8 + 4 * (len(inputs) + len(targets)) :]))


def _encode(example: Example) -> bytes:
    counts = np.array([len(example.inputs), len(example.targets)], "<i4")
    tokens = np.concatenate([example.inputs, example.targets]).astype("<i4")
    return counts.tobytes() + tokens.tobytes() + json.dumps(example.features).encode()


def _open(folder: pathlib.Path) -> Records | None:
    """The records of a folder; None if there are none or, after a crash of the machine, not all."""
    try:
        info = json.loads((folder / "info.json").read_text())
        lengths = np.load(folder / "lengths.npy")
        source = grain.sources.ArrayRecordDataSource(str(folder / "examples.array_record"))
        if len(source) != info["examples"] or len(lengths) != info["examples"]:
            raise ValueError(
                f"{len(source)} records and {len(lengths)} lengths for {info['examples']} examples"
            )
        losses = {feature: Losses(**lost) for feature, lost in info["losses"].items()}
        counts = info["content"], info["without_eos"], losses, info["unread"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _log.warning("the examples in %s are damaged (%s): writing them again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Records(folder, source, lengths, *counts)


def _write_folder(task: seqio.Task, split: str, folder: pathlib.Path) -> None:
    """Writes beside the folder under another name and renames: it is whole or not there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"cannot write tokenised examples under {folder.parent} ({error.strerror}): set LMIRL_CACHE_DIR to a "
            "folder that can be written"
        ) from error
    try:
        temporary.chmod(0o755)
        _write(task, split, temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            if not folder.is_dir():  # Else another process was first, with the same tokens.
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(task: seqio.Task, split: str, folder: pathlib.Path) -> None:
    _log.info("tokenising %s, split %s", task.name, split)
    vocabularies = {key: as_vocabulary(task.output_features[key].vocabulary) for key in FEATURES}
    eos_ids = vocabularies["targets"].eos_ids
    lengths, without_eos, digest, heaviest = [], 0, hashlib.sha256(), None
    losses = {feature: Losses() for feature in FEATURES}
    # A record a group: reading one example decompresses no other.
    writer = array_record_module.ArrayRecordWriter(str(folder / "examples.array_record"), "group_size:1")
    try:
        for example in _examples(task, split):
            record = _encode(example)
            writer.write(record)
            digest.update(record[: 8 + 4 * (len(example.inputs) + len(example.targets))])
            if WEIGHT in example.features:
                weight = example.features[WEIGHT]
                check_weight(weight, f"task {task.name}, {split}, example {len(lengths)}")
                digest.update(repr(float(weight)).encode())
                heaviest = max(weight, heaviest or 0)
            for feature, lost in losses.items():
                lost.add(
                    vocabularies[feature], getattr(example, feature), kept_text(example.features, feature)
                )
            lengths.append((len(example.inputs), len(example.targets)))
            without_eos += len(example.targets) == 0 or int(example.targets[-1]) not in eos_ids
    finally:
        writer.close()
    if not lengths:
        raise UserError(f"split {split!r} of task {task.name} is empty: check its source")
    if heaviest == 0:
        raise UserError(
            f"every weight in split {split!r} of task {task.name} is 0: nothing is left to learn from"
        )
    np.save(folder / "lengths.npy", np.array(lengths, np.int64))
    info = {"task": task.name, "split": split, "examples": len(lengths), "without_eos": without_eos}
    counts = {feature: dataclasses.asdict(lost) for feature, lost in losses.items()}
    unread = task.source.unread.get(split, {}) if isinstance(task.source, JsonlSource) else {}
    info |= {"losses": counts, "unread": unread, "content": digest.hexdigest()}
    (folder / "info.json").write_text(json.dumps(info))


def _examples(task: seqio.Task, split: str) -> Iterator[Example]:
    for element in _dataset(task, split).as_numpy_iterator():
        features = {key: _plain(value) for key, value in element.items() if key not in FEATURES}
        yield Example(np.asarray(element["inputs"]), np.asarray(element["targets"]), features)


def _dataset(task: seqio.Task, split: str) -> tf.data.Dataset:
    """SeqIO's pipeline in its own order, untrimmed."""
    if task.supports_caching and task.cache_dir:
        return task.get_dataset(
            None, split, use_cached=True, shuffle=False, seed=SEED, try_in_mem_cache=False
        )
    # Task.get_dataset would hand its seed to sources that take none.
    dataset = task.source.get_dataset(split=split, shuffle=False)
    dataset = task.preprocess_precache(dataset, seed=SEED)
    dataset = task.preprocess_postcache(dataset, sequence_length=None, seed=SEED)
    for key in FEATURES:
        spec = dataset.element_spec.get(key)
        if spec is None or not spec.dtype.is_integer or spec.shape.rank != 1:
            found = ", ".join(f"{k} ({getattr(v, 'dtype', v)})" for k, v in dataset.element_spec.items())
            raise UserError(
                f"task {task.name}: after its preprocessors {key!r} is not a list of tokens (found: {found}); add "
                "seqio.preprocessors.tokenize and seqio.preprocessors.append_eos"
            )
    return dataset


def _plain(value: Any) -> Any:
    """A JSON value of what TensorFlow gives; bytes that are no UTF-8 survive as surrogates."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    if isinstance(value, tf.compat.v1.ragged.RaggedTensorValue):
        return _plain(value.to_list())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value

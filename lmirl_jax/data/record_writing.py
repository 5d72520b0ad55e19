"""Joins the shards of a split into the files that are read, in memory that does not grow with them."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

import numpy as np
from jaxtyping import Int32, Int64

from lmirl_jax import content_hashes
from lmirl_jax.data.columns import REJECTED
from lmirl_jax.data.example_source import FEATURES, LENGTHS, PLACES, TOKENS
from lmirl_jax.data.facts import COUNTED, Facts, parse_facts
from lmirl_jax.data.given_rewards import LABEL, has_label, token_rewards
from lmirl_jax.data.jsonl import WEIGHT
from lmirl_jax.data.preferences import has_rejected
from lmirl_jax.data.shards import SIZES, read_facts, read_shard
from lmirl_jax.data.task_parts import TURNS
from lmirl_jax.types import UserError


def join_shards(
    task: str, split: str, shards: Sequence[pathlib.Path], unread: Mapping[str, int], folder: pathlib.Path
) -> None:
    """Writes the files of a split, as `records` describes them, into an empty folder.

    Args:
        task: the name of the task.
        split: the name of the split.
        shards: the files of all shards, in order.
        unread: for each key that is not read, the number of rows that have it.
        folder: the folder.

    Raises:
        UserError: no examples, or nothing but weights of 0.
    """
    facts = Facts()
    for shard in shards:
        facts.merge(read_facts(shard))
    if not facts.examples:
        raise UserError(f"split {split!r} of task {task} is empty: check its source")
    if facts.heaviest == 0:
        raise UserError(f"every weight in split {split!r} of task {task} is 0: nothing is left to learn from")
    token_type = "<u2" if facts.lowest >= 0 and facts.highest < 2**16 else "<i4"
    content = _write_arrays(shards, facts, token_type, folder)
    info = {name: getattr(facts, name) for name in COUNTED} | {
        "task": task,
        "split": split,
        "token_type": token_type,
        "losses": {feature: dataclasses.asdict(lost) for feature, lost in facts.losses.items()},
        "unread": dict(unread),
        "weighted": facts.heaviest is not None,
        "content": content,
    }
    (folder / "info.json").write_text(json.dumps(info))
    content_hashes.write_hashes(folder)


def _write_arrays(shards: Sequence[pathlib.Path], facts: Facts, token_type: str, folder: pathlib.Path) -> str:
    """Writes the arrays of all shards one after the other, and returns the hash of their content."""
    digest, end_of_tokens, end_of_features = hashlib.sha256(), 0, 0
    with (
        open(folder / TOKENS, "wb") as tokens,
        open(folder / FEATURES, "wb") as features,
        _array(folder / PLACES, (facts.examples + 1, 3)) as places,
    ):
        for shard in shards:
            read = read_shard(shard)
            tokens.write(read["tokens"].astype(token_type).tobytes())
            features.write(read["features"].tobytes())
            for chunk in _hashed(read, weighted=facts.heaviest is not None):
                digest.update(chunk)
            sizes, bytes_of_features = read["lengths"], read["feature_sizes"]
            ends = end_of_tokens + np.cumsum(sizes.sum(axis=1))
            ends_of_features = end_of_features + np.cumsum(bytes_of_features)
            begins = [ends - sizes.sum(axis=1), ends - sizes[:, 1], ends_of_features - bytes_of_features]
            places.write(np.stack(begins, axis=1).astype("<i8").tobytes())
            end_of_tokens, end_of_features = int(ends[-1]), int(ends_of_features[-1])
        places.write(np.array([end_of_tokens, end_of_tokens, end_of_features], "<i8").tobytes())
    with _array(folder / LENGTHS, (len(SIZES), facts.examples, 2)) as lengths:
        for name in SIZES:
            for shard in shards:
                lengths.write(read_shard(shard, [name])[name].astype("<i8").tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _array(file: pathlib.Path, shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """A `.npy` file of whole numbers, to which they are written in order: on a full disk a write fails, a memory map kills."""
    with open(file, "wb") as opened:
        header = {"descr": "<i8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(opened, header)
        yield opened


def _hashed(arrays: Mapping[str, np.ndarray], weighted: bool) -> Iterator[bytes]:
    """The bytes of a shard's examples that the hash of the content is made of.

    They are, for each, the numbers of its inputs and targets and its tokens as int32; its weight, if any example of the split
    has one; its rewards, its turns and its rejected answer, if it has any.
    """
    tokens, lengths = arrays["tokens"], arrays["lengths"]
    facts = parse_facts(arrays["facts"])
    if not (weighted or facts.rewarded or facts.conversations or facts.preferences):
        yield _with_lengths(tokens, lengths)
        return
    begin, at = 0, 0
    for (n, m), size in zip(lengths.tolist(), arrays["feature_sizes"].tolist(), strict=True):
        features = json.loads(arrays["features"][at : at + size].tobytes())
        yield np.array([n, m], "<i4").tobytes() + tokens[begin : begin + n + m].astype("<i4").tobytes()
        if weighted:
            yield repr(float(features.get(WEIGHT, 1))).encode()
        if has_label(features):
            yield repr([LABEL, features[LABEL]]).encode()
        rewards = token_rewards(features, m)
        if rewards is not None:
            yield repr(rewards.tolist()).encode()
        if TURNS in features:
            yield repr(features[TURNS]).encode()
        if has_rejected(features):
            yield repr([REJECTED, features[REJECTED]]).encode()
        begin, at = begin + n + m, at + size


def _with_lengths(tokens: Int32[np.ndarray, " tokens"], lengths: Int64[np.ndarray, "examples 2"]) -> bytes:
    """The tokens, with both lengths of each example before its own."""
    sizes = lengths.sum(axis=1)
    places = np.cumsum(sizes) - sizes + 2 * np.arange(len(sizes))
    joined = np.empty(len(tokens) + lengths.size, "<i4")
    is_token = np.ones(len(joined), bool)
    for column in (0, 1):
        joined[places + column] = lengths[:, column]
        is_token[places + column] = False
    joined[is_token] = tokens
    return joined.tobytes()

"""What seqio_cache_tasks wrote is read in place of a task's source."""

import json

import pytest

from lmirl_jax import data
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.types import UserError


def write_cache(folder, split, examples):
    """Writes the files of seqio.caching: a record for each example, and what tells their shapes and their number."""
    folder.mkdir(parents=True, exist_ok=True)
    feature = {"shape": [None], "dtype": "int32"}
    info = {"num_shards": 1, "features": dict.fromkeys(("inputs", "targets"), feature)}
    info["seqio_version"] = seqio.__version__
    (folder / f"info.{split}.json").write_text(json.dumps(info))
    (folder / f"stats.{split}.json").write_text(json.dumps({"examples": len(examples)}))
    with tf.io.TFRecordWriter(str(folder / f"{split}.tfrecord-00000-of-00001")) as writer:
        for example in examples:
            features = {
                key: tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
                for key, ids in example.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    (folder / "COMPLETED").write_text("")


@pytest.fixture
def cached(make_task, tmp_path, monkeypatch):
    """A task that may be cached, and the folder of its cache, of which SeqIO knows the parent."""
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])
    data.add_cache_dirs([str(tmp_path)])

    def make(**settings):
        steps = [seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(**settings)]
        return make_task({"train": [("a", "b")]}, preprocessors=[*steps, seqio.preprocessors.append_eos])

    return make, tmp_path / "letters"


def test_cached_tokens_are_read_and_what_comes_after_the_cache_is_done(cached, tmp_path):
    make, folder = cached
    # The cache holds what stands before its placeholder, without EOS, and other tokens than the source to tell them apart.
    write_cache(folder, "train", [{"inputs": [50, 51], "targets": [60]}, {"inputs": [52], "targets": []}])
    records = data.tokenized_records(make(), "train", str(tmp_path / "records"))
    assert [records.source[n].inputs.tolist() for n in range(2)] == [[50, 51, 1], [52, 1]]
    assert [records.source[n].targets.tolist() for n in range(2)] == [[60, 1], [1]]
    write_cache(folder, "train", [{"inputs": [53], "targets": [61]}])
    again = data.tokenized_records(make(), "train", str(tmp_path / "records"))
    assert again.folder != records.folder and again.source[0].inputs.tolist() == [53, 1]


def test_without_a_cache_the_source_is_read_unless_the_cache_is_required(cached, tmp_path):
    make, _ = cached
    records = data.tokenized_records(make(), "train", str(tmp_path / "records"))
    assert records.source[0].inputs.tolist() == [100, 1]
    with pytest.raises(UserError, match="must be cached with seqio_cache_tasks first"):
        data.tokenized_records(make(required=True), "train", str(tmp_path / "records"))

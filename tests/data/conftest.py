"""Small tasks that the tests of this room share."""

import json

import pytest

from lmirl_jax.data.mixture_or_task import Task
from lmirl_jax.data.seqio_library import seqio, tf


@pytest.fixture
def write_jsonl(tmp_path):
    """Writes examples, or raw lines, to a file and returns its path."""

    def write(lines, name="examples.jsonl"):
        path = tmp_path / name
        path.write_text(
            "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        )
        return str(path)

    return write


@pytest.fixture
def make_task():
    """A task of a few texts a split; unregistered unless asked."""

    def make(texts, name="letters", register=False, **settings):
        def dataset(split, shuffle_files):
            inputs, targets = zip(*texts[split], strict=True) if texts[split] else ((), ())
            spec = {"inputs": list(inputs), "targets": list(targets)}
            return tf.data.Dataset.from_tensor_slices({k: tf.constant(v, tf.string) for k, v in spec.items()})

        feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
        arguments = {
            "name": name,
            "source": seqio.FunctionDataSource(dataset, splits=tuple(texts)),
            "preprocessors": [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            "output_features": {"inputs": feature, "targets": feature},
        } | settings
        if register:
            seqio.TaskRegistry.add(**arguments)
            registered.append(name)
        return seqio.Task(**arguments)

    registered = []
    yield make
    for name in registered:
        seqio.TaskRegistry.remove(name)


@pytest.fixture
def single():
    """A SeqIO task as `get_task` would return it."""
    return lambda task: Task(task.name, (task,), (1.0,))

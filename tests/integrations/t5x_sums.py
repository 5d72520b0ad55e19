"""Sums of two numbers as a SeqIO task, for T5X."""

import seqio
import tensorflow as tf


def sums(split, shuffle_files=False, seed=None):
    numbers = range(80) if split == "train" else range(80, 96)
    return tf.data.Dataset.from_tensor_slices(
        {"inputs": [f"{n}+{n}" for n in numbers], "targets": [str(2 * n) for n in numbers]}
    )


def exact_match(targets, predictions):
    return {"exact_match": sum(map(str.__eq__, targets, predictions)) / len(targets)}


text = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
seqio.TaskRegistry.add(
    "t5x_sums",
    source=seqio.FunctionDataSource(sums, splits=("train", "validation")),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    output_features={"inputs": text, "targets": text},
    metric_fns=[exact_match],
)

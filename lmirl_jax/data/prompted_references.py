"""SeqIO tasks whose prompts are a prefix and a text, with one reference or several to each: summaries and translations."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmirl_jax.data.task_parts import REFERENCES


def add_task(
    name: str,
    source: Callable[[], Any],
    preprocess: functools.partial,
    metric_fns: Sequence[Callable[..., Mapping[str, float]]],
) -> None:
    """Registers a task with SeqIO, unless it is registered already. Its vocabulary is bytes, and both texts end in EOS.

    Args:
        name: the name of the task.
        source: makes its `seqio.DataSource`.
        preprocess: `prompt_and_references` with its arguments.
        metric_fns: functions of `(targets, predictions)`, where a target is a list of references.
    """
    import seqio

    if name in seqio.TaskRegistry.names():
        return
    text = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    seqio.TaskRegistry.add(
        name,
        source=source(),
        preprocessors=[preprocess, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": text, "targets": text},
        postprocess_fn=postprocess,
        metric_fns=list(metric_fns),
    )


def prompt_and_references(dataset: Any, *, prefix: str, source: str, target: str) -> Any:
    """Rows of a text, or a list of sentences, and of one reference or several, as `inputs`, `targets` and `references`.

    White space at the ends of texts is left out; within references a run of it becomes one space, because vocabularies such as
    T5's have no newline. Empty references are left out, and so are rows without a text or a reference.

    Args:
        dataset: the rows, a `tf.data.Dataset`.
        prefix: the text before each source, such as T5's "summarize: ".
        source: the key of the text; the sentences of a list are joined, with one space for each run of white space.
        target: the key of the references.
    """
    import tensorflow as tf

    def texts_of(row: Mapping[str, Any]) -> dict[str, Any]:
        text = row[source]
        if text.shape.rank == 1:
            text = tf.strings.regex_replace(tf.strings.reduce_join(text, separator=" "), r"\s+", " ")
        references = tf.reshape(row[target], [-1])
        references = tf.strings.strip(tf.strings.regex_replace(references, r"\s+", " "))
        return {"text": tf.strings.strip(text), "references": tf.boolean_mask(references, references != "")}

    def example(row: Mapping[str, Any]) -> dict[str, Any]:
        references = row["references"]
        return {
            "inputs": tf.strings.join([prefix, row["text"]]),
            "targets": references[0],
            # Empty where there is one, which is in `targets`: most training examples have no other.
            REFERENCES: references[: tf.where(tf.size(references) > 1, tf.size(references), 0)],
        }

    dataset = dataset.map(texts_of, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.filter(lambda row: row["text"] != "" and tf.size(row["references"]) > 0)
    return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)


def postprocess(
    text: str, is_target: bool = False, example: Mapping[str, Any] | None = None, **_: Any
) -> str | list[str]:
    """A prediction stays as it is; a target becomes the list of all references."""
    if not is_target:
        return text
    references = [each.decode(errors="surrogateescape") for each in (example or {}).get(REFERENCES, ())]
    return references or [text]

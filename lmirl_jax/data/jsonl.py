"""A file of `inputs` and `targets`, JSON lines or another format, as a SeqIO task: fine-tuning without a line of code."""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import NonNegative
from lmirl_jax.data.formats import local_file, read_rows
from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

KEYS = ("inputs", "targets")
WEIGHT = "weight"  # Of an example in the loss, a number of 0 or more; 1 where it is not given.
READ = (*KEYS, WEIGHT, "id")  # An id is for the user's eyes.


class JsonlSource(seqio.FunctionDataSource):
    """A file a split; what it holds, not where it lies, is its identity."""

    def __init__(self, files: Mapping[str, str]):
        self.files = dict(files)
        self.unread: dict[str, dict[str, int]] = {}  # By split, how many rows have each key that is not read.
        super().__init__(dataset_fn=self._dataset, splits=tuple(files))

    def content_hash(self, split: str) -> str:
        with open(existing_file(self.files[split], split), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _dataset(self, split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        file = existing_file(self.files[split], split)
        # One pass to judge every line: an error raised inside of TensorFlow's generator would lose its name.
        unread = UnreadKeys(READ)
        weighted = [WEIGHT in example for example in read_jsonl(file, numbers=(WEIGHT,), unread=unread)]
        self.unread[split] = dict(unread.counts)
        spec = {key: tf.TensorSpec([], tf.string) for key in KEYS}
        if not any(weighted):
            return tf.data.Dataset.from_generator(lambda: read_jsonl(file), output_signature=spec)

        def examples() -> Iterator[dict[str, Any]]:
            return ({WEIGHT: 1.0, **example} for example in read_jsonl(file, numbers=(WEIGHT,)))

        spec[WEIGHT] = tf.TensorSpec([], tf.float64)
        return tf.data.Dataset.from_generator(examples, output_signature=spec)


def read_jsonl(
    file: pathlib.Path,
    required: Sequence[str] = KEYS,
    optional: Sequence[str] = (),
    numbers: Sequence[str] = (),
    unread: UnreadKeys | None = None,
) -> Iterator[dict[str, Any]]:
    """The examples of a file, in order: of each its required strings, and the optional ones and numbers that it has.

    Args:
        file: of any format in `formats`.
        required: keys of strings.
        optional: keys of strings.
        numbers: keys of numbers.
        unread: where given, counts the keys that are none of these.

    Raises:
        UserError: names the file and the line that is not a JSON object with the required strings, or has a number that
            is none or is below 0.
    """
    for where, example in read_objects(file, required):
        if unread is not None:
            unread.add(example, where)
        for key in required:
            if key not in example:
                found = ", ".join(sorted(example)) or "nothing"
                raise UserError(
                    f"{where}: no key {key!r} (found: {found}); every line needs {' and '.join(required)}"
                )
        kept = {key: example[key] for key in (*required, *optional) if key in example}
        for key, text in kept.items():
            check_text(text, f"{where}: {key}")
        given = {key: example[key] for key in numbers if key in example}
        for key, number in given.items():
            check_weight(number, where, key)
        yield kept | {key: float(number) for key, number in given.items()}


def read_objects(
    file: pathlib.Path, required: Sequence[str] = KEYS, also: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, in order, and what to call each in an error; see `formats.read_rows`.

    Raises:
        UserError: names the file and the row that is none; `required` says in it what should be there.
    """
    remedy = "write {" + ", ".join(f'"{key}": ".."' for key in required) + "}"
    empty = f"write one JSON object with {' and '.join(required)} a line"
    return read_rows(file, remedy, empty, also)


def check_text(text: Any, what: str) -> None:
    """Raises a UserError, which says what it is, unless it is a string that UTF-8 can hold."""
    if isinstance(text, list):
        raise UserError(
            f"{what} is a list, not a string; write one string, and a line for each further one; lmirl score takes a list of "
            "answers as 'candidates', and metrics take several references from a task of your own"
        )
    if text is None or isinstance(text, dict):
        kind = "null" if text is None else "an object"
        raise UserError(f"{what} is {kind}, not a string; write its text, or leave the line out")
    if not isinstance(text, str):
        raise UserError(f"{what} is {type(text).__name__}, not a string; put it in quotes")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} holds half of a surrogate pair; write the character itself")


def jsonl_task(data: str, validation_data: str | None, vocabulary: seqio.Vocabulary) -> seqio.Task:
    """An unregistered SeqIO task over one JSONL file or two, named after the first; its metric is `exact_match`."""
    given = {"train": data, "validation": validation_data}
    files = {split: os.fspath(path) for split, path in given.items() if path is not None}
    feature = seqio.Feature(vocabulary, add_eos=True)
    return seqio.Task(
        name=re.sub(r"[^\w.]", "_", pathlib.PurePath(files["train"]).stem) or "data",
        source=JsonlSource(files),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=dict.fromkeys(KEYS, feature),
        metric_fns=[exact_match],
    )


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """The fraction of predictions that equal their target, whitespace at the ends aside."""
    hits = [t.strip() == p.strip() for t, p in zip(targets, predictions, strict=True)]
    return {"exact_match": sum(hits) / max(len(hits), 1)}


def existing_file(file: str | os.PathLike[str], split: str) -> pathlib.Path:
    """The file of a split, once it is read: a run's checkpoint is of use also where its data is not.

    Raises:
        UserError: there is none.
    """
    name = "DATA" if split == "train" else "VALIDATION_DATA"
    return local_file(file, f"{name} must be a JSONL file with inputs and targets on every line")


def check_weight(number: Any, where: str, key: str = WEIGHT) -> None:
    """Raises a UserError, which says `where`, unless this is a number of 0 or more that float32 holds: the loss is in it."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(
            f"{where}: {key} is {type(number).__name__}, not a number; write a number of 0 or more, or leave it out"
        )
    if not fits(number, NonNegative):
        raise UserError(
            f"{where}: {key} is {number}; write a number of 0 or more that float32 holds (0, or 1.2e-38 to 3.4e38), or "
            "leave it out"
        )

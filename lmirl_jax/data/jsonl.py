"""A JSONL file of `inputs` and `targets` as a SeqIO task: fine-tuning without a line of code."""

import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.data.seqio_library import seqio, tf
from lmirl_jax.types import UserError

KEYS = ("inputs", "targets")
WEIGHT = "weight"  # Of an example in the loss, a number of 0 or more; 1 where it is not given.


class JsonlSource(seqio.FunctionDataSource):
    """A file a split; what it holds, not where it lies, is its identity."""

    def __init__(self, files: Mapping[str, pathlib.Path]):
        self.files = dict(files)
        super().__init__(dataset_fn=self._dataset, splits=tuple(files))

    def content_hash(self, split: str) -> str:
        with open(existing_file(self.files[split], split), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            weighted = any(f'"{WEIGHT}"'.encode() in line for line in file)
        # The tokens of a file are kept by this hash; before examples had weights they were kept without.
        return f"{digest} weighted" if weighted else digest

    def _dataset(self, split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        file = existing_file(self.files[split], split)
        # One pass to judge every line: an error raised inside of TensorFlow's generator would lose its name.
        weighted = [WEIGHT in example for example in read_jsonl(file, numbers=(WEIGHT,))]
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
) -> Iterator[dict[str, Any]]:
    """The examples of a file, in order: of each its required strings, and the optional ones and numbers that it has.

    Raises:
        UserError: names the file and the line that is not a JSON object with the required strings, or has a number that
            is none or is below 0.
    """
    for where, example in read_objects(file, required):
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


def read_objects(file: pathlib.Path, required: Sequence[str] = KEYS) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON objects of a file, a line each, in order, and what to call that line in an error.

    Raises:
        UserError: names the file and the line that is no JSON object; `required` says in it what should be there.
    """
    remedy = "write {" + ", ".join(f'"{key}": ".."' for key in required) + "}"
    number, examples = 0, 0
    try:
        with open(file, encoding="utf-8-sig") as lines:  # Some editors put a byte order mark first.
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    examples += 1
                    where = f"{file}, line {number}"
                    yield where, _object(line, where, remedy)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, after line {number}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    if not examples:
        raise UserError(f"{file} is empty: write one JSON object with {' and '.join(required)} a line")


def check_text(text: Any, what: str) -> None:
    """Raises a UserError, which says what it is, unless it is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        raise UserError(f"{what} is {type(text).__name__}, not a string; put it in quotes")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} holds half of a surrogate pair; write the character itself")


def jsonl_task(data: str, validation_data: str | None, vocabulary: seqio.Vocabulary) -> seqio.Task:
    """An unregistered SeqIO task over one JSONL file or two, named after the first; its metric is `exact_match`."""
    given = {"train": data, "validation": validation_data}
    files = {split: pathlib.Path(path).expanduser() for split, path in given.items() if path is not None}
    feature = seqio.Feature(vocabulary, add_eos=True)
    return seqio.Task(
        name=re.sub(r"[^\w.]", "_", files["train"].stem) or "data",
        source=JsonlSource(files),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features=dict.fromkeys(KEYS, feature),
        metric_fns=[exact_match],
    )


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """The fraction of predictions that equal their target, whitespace at the ends aside."""
    hits = [t.strip() == p.strip() for t, p in zip(targets, predictions, strict=True)]
    return {"exact_match": sum(hits) / max(len(hits), 1)}


def existing_file(file: pathlib.Path, split: str) -> pathlib.Path:
    """The file of a split, once it is read: a run's checkpoint is of use also where its data is not.

    Raises:
        UserError: there is none.
    """
    if not file.is_file():
        name = "DATA" if split == "train" else "VALIDATION_DATA"
        raise UserError(
            f"no file at {file}: {name} must be a JSONL file with inputs and targets on every line"
        )
    return file


def _object(line: str, where: str, remedy: str) -> dict[str, Any]:
    try:
        example: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); {remedy}") from error
    if not isinstance(example, dict):
        raise UserError(f"{where}: not a JSON object; {remedy}")
    return example


def check_weight(number: Any, where: str, key: str = WEIGHT) -> None:
    """Raises a UserError, which says `where`, unless this is a finite number of 0 or more."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(
            f"{where}: {key} is {type(number).__name__}, not a number; write a number of 0 or more, or leave it out"
        )
    if not (math.isfinite(number) and number >= 0):
        raise UserError(f"{where}: {key} is {number}; write a finite number of 0 or more, or leave it out")

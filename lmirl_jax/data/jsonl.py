"""Reads the rows of files of demonstrations, JSON lines or another format, and checks them."""

import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import NonNegative
from lmirl_jax.data.columns import KEYS, MESSAGES, REJECTED, ROLES, WEIGHT, Columns
from lmirl_jax.data.data_files import data_files
from lmirl_jax.data.formats import read_rows
from lmirl_jax.data.given_rewards import LABEL, REWARD, REWARDS, STEP_REWARDS
from lmirl_jax.data.texts import has_surrogates
from lmirl_jax.data.unread_keys import UnreadKeys
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

# The keys of a row that are read, by their roles; see `columns`.
READ = ROLES
# Those of them that training reads.
TRAINED = (*KEYS, MESSAGES, REJECTED, WEIGHT, REWARD, REWARDS, STEP_REWARDS, LABEL)


def read_demonstrations(
    files: Iterable[pathlib.Path],
    columns: Columns,
    unread: UnreadKeys,
    takes: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The demonstrations of some files, in order.

    Args:
        files: files of any format in `formats`.
        columns: the columns of their rows.
        unread: counts the keys that are not read.
        takes: whether a row is wanted; None for all rows.

    Yields:
        The name of the row in errors, and the values that training reads, by their roles.

    Raises:
        UserError: names the file and the row that is no object with a prompt and an answer or with messages, or has a weight
            that is not a number of 0 or more. Messages and rewards are judged where the vocabulary is known.
    """
    read = set()
    for where, given in read_objects(files):
        row = columns.read(given, where)
        values, others = row.values, _of_another_meaning(row.values, columns, where)
        for key in others:
            del values[key]
        unread.check(values, where)
        read.update(values)
        both = [key for key in KEYS if key in values]
        if MESSAGES in values and both:
            raise UserError(
                f"{where}: {MESSAGES!r} and {both[0]!r}; keep the messages, which hold the answer too, or inputs and targets"
            )
        for key in (MESSAGES,) if MESSAGES in {*values, *columns.names} else KEYS:
            if key not in values:
                raise columns.lacking(key, given, where)
            if key != MESSAGES:
                check = check_targets if key == "targets" else check_text
                check(values[key], f"{where}: {row.names[key]}")
        if WEIGHT in values:
            check_weight(values[WEIGHT], where)
        if takes is None or takes(values):
            unread.add(values, [*row.hidden, *others])
            yield (
                where,
                {key: values[key] for key in TRAINED if key in values},
            )
    absent = [role for role in columns.names if role not in {*read, *KEYS}]
    if absent:
        raise UserError(
            f"COLUMNS names {columns.names[absent[0]]!r} as the {absent[0]}, and no row has it: correct the name, or leave it out"
        )


def read_objects(
    files: Iterable[pathlib.Path], required: Sequence[str] = KEYS, also: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the rows of some files, in order, each with its name in errors; see `formats.read_rows`.

    Raises:
        UserError: names the file and the row that is no object, or there are no rows; `required` says in it which keys should be
            there.
    """
    remedy = "write {" + ", ".join(f'"{key}": ".."' for key in required) + "}"
    empty = f"write one JSON object with {' and '.join(required)} a line"
    files, count = list(files), 0
    for file in files:
        before = count
        # Of several files, some may be empty, as a table with a header alone is.
        for where, row in read_rows(file, remedy, None if len(files) > 1 else empty, also):
            count += 1
            yield where, row
        if count == before:
            _log.info("%s is empty", file)
    if not count:
        raise UserError(f"{files[0]} and {len(files) - 1} more files are empty: {empty}")


def check_targets(texts: Any, what: str) -> None:
    """Raises a UserError that describes the value, unless it is an answer, or a list of one answer or more."""
    if not isinstance(texts, list):
        check_text(texts, what)
        return
    if not texts:
        raise UserError(f"{what} is an empty list; write an answer, or leave the row out")
    for number, text in enumerate(texts, start=1):
        check_text(text, f"{what}, answer {number}")


def check_text(text: Any, what: str) -> None:
    """Raises a UserError that describes the value, unless it is a string that UTF-8 can hold."""
    if isinstance(text, list):
        raise UserError(f"{what} is a list, not a string; write one string")
    if text is None or isinstance(text, dict):
        kind = "null" if text is None else "an object"
        raise UserError(f"{what} is {kind}, not a string; write its text, or leave the line out")
    if not isinstance(text, str):
        raise UserError(f"{what} is {type(text).__name__}, not a string; put it in quotes")
    if has_surrogates(text):
        raise UserError(f"{what} holds half of a surrogate pair; write the character itself")


def demonstration_files(
    path: str | os.PathLike[str], setting: str, split: str = "train"
) -> list[pathlib.Path]:
    """The files of DATA or VALIDATION_DATA. They are looked for when they are read: a checkpoint is useful without its data.

    Args:
        path: a path as `data_files` takes it.
        setting: the name of the setting that gave the path.
        split: the split to take of a saved dictionary of data sets.

    Raises:
        UserError: there are none.
    """
    return data_files(path, f"{setting} must name a file with inputs and targets in every row", split)


def _of_another_meaning(values: Mapping[str, Any], columns: Columns, where: str) -> list[str]:
    """The roles of labelled data that columns of this name do not have here: the label of a class, a flag called rejected."""
    keys = []
    if LABEL in values and not _says_right_or_wrong(values[LABEL], LABEL in columns.names, where):
        keys.append(LABEL)
    if not isinstance(values.get(REJECTED, ""), str | list) and REJECTED not in columns.names:
        keys.append(REJECTED)
    return keys


def _says_right_or_wrong(label: Any, named: bool, where: str) -> bool:
    """Whether a label is one of right and wrong answers; that of a class, a number or a text, is not, and is not read.

    Args:
        label: the value.
        named: whether COLUMNS names its column; then 0 and 1 will do.
        where: the name of the row in errors.
    """
    if isinstance(label, bool) or (named and label in (0, 1)):
        return True
    if named:
        raise UserError(
            f"{where}: the label is {label!r}; write true for a right answer and false for a wrong one"
        )
    return False


def check_weight(number: Any, where: str) -> None:
    """Raises a UserError, which says `where`, unless this is a number of 0 or more that float32 holds: the loss is in it."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise UserError(
            f"{where}: {WEIGHT} is {type(number).__name__}, not a number; write a number of 0 or more, or leave it out"
        )
    if not fits(number, NonNegative):
        raise UserError(
            f"{where}: {WEIGHT} is {number}; write a number of 0 or more that float32 holds (0, or 1.2e-38 to 3.4e38), or "
            "leave it out"
        )

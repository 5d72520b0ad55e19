"""Which columns of a row are the prompt, the answer and the rest: the names that people use, or those that COLUMNS gives.

The prompt, `inputs`, may be the column `inputs`, `prompt`, `question` or `instruction`, and the answer, `targets`, the column
`targets`, `completion`, `answer`, `output` or `chosen`. An `input` that is not empty follows its `instruction` after an empty
line. Where prompt and answer are lists of messages, they are one conversation; so is an answer of messages beside a rejected one.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from lmirl_jax.argument_rules import Words
from lmirl_jax.data.csv_rows import TextRow
from lmirl_jax.data.given_rewards import LABEL, REWARD, REWARDS, STEP_REWARDS
from lmirl_jax.data.json_rows import keys_of
from lmirl_jax.types import UserError

KEYS = ("inputs", "targets")
# The weight of an example in the loss, a number of 0 or more; 1 where a row has none.
WEIGHT = "weight"
# A conversation, in place of the keys above.
MESSAGES = "messages"
# The worse answer to the same prompt, beside `targets` or `messages`.
REJECTED = "rejected"
# An id is only for the user to read.
ROLES = (*KEYS, MESSAGES, REJECTED, WEIGHT, REWARD, REWARDS, STEP_REWARDS, LABEL, "id")
# The usual names of the columns of a role, beside its own.
USUAL = {
    "inputs": ("prompt", "question", "instruction"),
    "targets": ("completion", "answer", "output", "chosen"),
}
# The most layouts of rows that are kept.
_LAYOUTS = 1024
INSTRUCTION, MORE = "instruction", "input"
# Columns of text formats that hold JSON; a text may look like a number or a list.
_JSON = (MESSAGES, WEIGHT, REWARD, REWARDS, STEP_REWARDS, LABEL, "candidates", "samples", "tokens")


def _is_mapping(names: Any) -> bool:
    """Whether roles are the keys, a column has one role, and the prompt is named once: as a text or in messages."""
    columns = list(names.values())
    return (
        bool(names)
        and set(names) <= set(ROLES)
        and all(columns)
        and len(set(columns)) == len(columns)
        and not (MESSAGES in names and set(KEYS) & set(names))
    )


ColumnNames = Annotated[
    Mapping[str, str],
    Words(
        "{'inputs': 'question', 'targets': 'answer'}, or other names of columns for inputs and targets (or messages), "
        "rejected, weight, reward, rewards, step_rewards, label or id",
        _is_mapping,
    ),
]


class Row(NamedTuple):
    """A row whose columns have their roles.

    Args:
        values: the values by role; further columns by their own names.
        names: by role, the name of its column, for errors.
        hidden: columns that go by the name of a role which another column has.
    """

    values: dict[str, Any]
    names: dict[str, str]
    hidden: list[str]


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of rows by their roles.

    Args:
        names: by role, the name of its column, as COLUMNS gives it; the other roles have their usual names.
        lenient: whether a row without a column of `names` has the usual names for this role.
    """

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lenient: bool = False
    _layouts: dict[tuple[str, ...], Any] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def read(self, row: Mapping[str, Any], where: str) -> Row:
        """Finds the columns of a row.

        Args:
            row: the row of a file.
            where: the name of the row in errors.

        Raises:
            UserError: two columns for one role, an answer beside a conversation, or messages and a text as prompt and answer.
        """
        found, rest, hidden = self._layout(row, where)
        values = {key: row[key] for key in rest}
        values |= {role: row[column] for role, column in found.items()}
        if found.get("inputs") == INSTRUCTION and INSTRUCTION not in self.names.values() and MORE in values:
            values["inputs"] = _join(values["inputs"], values.pop(MORE), where)
        _join_messages(values, found, where)
        return Row(_parsed(values) if isinstance(row, TextRow) else values, found, hidden)

    def _layout(self, row: Mapping[str, Any], where: str) -> tuple[dict[str, str], list[str], list[str]]:
        """By role its column, the columns without a role, and those that a role hides."""
        keys = tuple(row)
        # Most rows of a file have the same columns.
        if keys not in self._layouts:
            found = {role: column for role in ROLES if (column := self._column(role, row, where)) is not None}
            _check_conversation(found, self.names, where)
            others = [key for key in keys if key not in found.values()]
            rest, hidden = ([key for key in others if (key in ROLES) == role] for role in (False, True))
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[keys] = found, rest, hidden
        return self._layouts[keys]

    def lacking(self, role: str, row: Mapping[str, Any], where: str) -> UserError:
        """The error about a row without a column for a role."""
        there = keys_of(row)
        name = self.names.get(role, role)
        named = ", which COLUMNS names" if role in self.names else ""
        return UserError(
            f"{where}: no key {name!r}{named} (found: {there}); every row needs {' and '.join(KEYS)}, or {MESSAGES}, or names "
            f"that COLUMNS gives, such as {_example(role, row)}"
        )

    def _column(self, role: str, row: Mapping[str, Any], where: str) -> str | None:
        """The column of a role in a row; None if there is none."""
        if role in self.names:
            name = self.names[role]
            if name in row or not self.lenient:
                return name if name in row else None
        elif self._displaced(role, row):
            return None
        taken = {name for other, name in self.names.items() if other != role}
        names = [name for name in (role, *USUAL.get(role, ())) if name in row and name not in taken]
        if len(names) > 1:
            raise UserError(
                f"{where}: {names[0]!r} and {names[1]!r} may both be the {role}: say which by COLUMNS, such as "
                f"{_example(role, names)}, or leave one out"
            )
        return names[0] if names else None

    def _displaced(self, role: str, row: Mapping[str, Any]) -> bool:
        """Whether COLUMNS says that a row is of the other kind, a conversation or a pair of texts."""
        others = {"inputs": (MESSAGES,), "targets": (MESSAGES,), MESSAGES: KEYS}.get(role, ())
        return any(other in self.names and (not self.lenient or self.names[other] in row) for other in others)


def _check_conversation(found: Mapping[str, str], names: Mapping[str, str], where: str) -> None:
    """Keeps a column with a usual name of a prompt or an answer from being passed over beside messages.

    Columns that are called `inputs` and `targets` may be there: files that commands write have a conversation's text too.
    """
    if MESSAGES not in found:
        return
    for key in KEYS:
        if key in found and found[key] != key and key not in names:
            raise UserError(
                f"{where}: {found[MESSAGES]!r} and {found[key]!r} may both hold the {key}: say which by COLUMNS, such as "
                f"{_example(MESSAGES, [found[MESSAGES]])}, or leave one out"
            )


def _join(instruction: Any, more: Any, where: str) -> Any:
    """The instruction of Alpaca's format with its input, which may be empty."""
    if more is None:
        return instruction
    if not isinstance(more, str):
        raise UserError(
            f"{where}: {MORE} is {type(more).__name__}, not a string; write a text, or name the prompt by COLUMNS, such as "
            f"{_example('inputs', [INSTRUCTION])}"
        )
    return f"{instruction}\n\n{more}" if isinstance(instruction, str) and more.strip() else instruction


def _join_messages(values: dict[str, Any], found: Mapping[str, str], where: str) -> None:
    """Makes a prompt that is a list of messages, with an answer that is one, a conversation in place of both."""
    kinds = {key: _holds_messages(values[key]) for key in KEYS if key in values}
    if not any(kinds.values()):
        return
    if MESSAGES in values:
        raise UserError(
            f"{where}: {MESSAGES!r} beside other messages in {found['inputs']!r}; leave one of them out"
        )
    if REJECTED in values and kinds.get("targets") and not kinds.get("inputs"):
        values[MESSAGES] = _of_preference(values)
        return
    if not all(kinds.values()) or "inputs" not in kinds:
        one, other = (found.get(key, key) for key in sorted(KEYS, key=lambda key: not kinds.get(key, False)))
        raise UserError(
            f"{where}: {one!r} is a list of messages and {other!r} is none; write both as messages, or both as texts"
        )
    values[MESSAGES] = [message for key in KEYS if key in values for message in values.pop(key)]


def _of_preference(values: dict[str, Any]) -> list[Any]:
    """The conversation of a chosen answer that is messages, whose prompt is among them, or a text, or both."""
    chosen, prompt = values.pop("targets"), values.pop("inputs", None)
    if prompt is None or chosen[0].get("role") != "assistant":
        return chosen
    return [{"role": "user", "content": prompt}, *chosen]


def _holds_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _parsed(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a row of texts: those that are no texts are read as JSON, and an empty one is left out."""
    result = {}
    for key, text in values.items():
        if key not in _JSON:
            result[key] = text
        elif text.strip():
            try:
                result[key] = json.loads(text)
            except (ValueError, RecursionError):
                # Whoever reads the value says what it must be.
                result[key] = text
    return result


def _example(role: str, names: Any) -> str:
    """How to set COLUMNS, with a name that is there."""
    name = (
        next((name for name in sorted(names) if name not in ROLES), None)
        if isinstance(names, Mapping)
        else names[0]
    )
    return f'--gin.COLUMNS="{{{role!r}: {name or "question"!r}}}"'

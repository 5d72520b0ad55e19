"""A config.json of Hugging Face, whose values are checked as they are read."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

from lmirl_jax.types import UserError

NAME = "config.json"
# The largest whole number that JAX's default type holds, and the largest float32.
MOST = 2**31 - 1
LARGEST = 3.4e38
# The letters of a strange value that an error shows.
SHOWN = 60
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of a config.json, or of a part of it.

    Args:
        where: the path of the file, for errors.
        values: its content.
    """

    where: str
    values: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        return str(self.values.get("model_type"))

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def count(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number; `default` where the file has none or null."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
            raise self._strange(name, value, f"a whole number from {least} to {MOST}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false; `default` where the file has none or null."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._strange(name, value, "true or false")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; `default` where the file has none or null."""
        value = self._value(name, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= LARGEST:
            raise self._strange(name, value, "a positive number")
        return float(value)

    def optional_number(self, name: str, default: float | None) -> float | None:
        """A positive number, or None where the file says null; `default` where it says nothing."""
        return None if self.values.get(name, default) is None else self.number(name, default)

    def one_of(self, name: str, choices: Mapping[str, Value], default: str | None = None) -> Value:
        """What a word of the file stands for."""
        value = self._value(name, default)
        if not isinstance(value, str) or value not in choices:
            raise self._strange(name, value, f"one of {', '.join(choices)}")
        return choices[value]

    def words(self, name: str) -> tuple[str, ...] | None:
        """A list of words; None where the file has none or null."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self._strange(name, value, "a list of words")
        return tuple(value)

    def part(self, name: str) -> "Config":
        """The settings of a part, such as the encoder."""
        value = self.values.get(name)
        if not isinstance(value, Mapping):
            raise self._strange(name, value, "the settings of a part of the model")
        return Config(f"{self.where}, {name}", value)

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value

    def _strange(self, name: str, value: Any, rule: str) -> UserError:
        what = "lacks" if value is None else f"has {_short(value)} as"
        return UserError(f"{self.where} {what} {name}, which must be {rule}: copy the file again")


def _short(value: Any) -> str:
    """A value as an error shows it; a file may have one of any length."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def read(folder: pathlib.Path) -> Config:
    """Reads the config.json of a folder."""
    path = folder / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read ({reason}): copy the checkpoint again") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path} is no config.json of a model: copy the checkpoint again")
    return Config(str(path), values)

"""Checks the values of a row of the file that `lmirl score` writes: another tool may have written or changed it."""

from collections.abc import Callable, Mapping
from typing import Any


def wrong_value(row: Mapping[str, Any]) -> str | None:
    """Describes the first value that no scored answer has.

    Args:
        row: the row, with all keys of `ScoredAnswer.to_row`.

    Returns:
        Words such as "v_0 is not a number", or None where all values are of the right kind.
    """
    for name, (kind, words) in _VALUES.items():
        if not kind(row[name]):
            return f"{name} is not {words}"
    tokens = row["tokens"]
    for name, kind in _BY_TOKEN.items():
        values = row[name]
        if name == "reference_log_prob" and values is None:
            continue
        if not isinstance(values, (list, tuple)) or not all(map(kind, values)):
            return f"{name} is not a list of the values of tokens"
        if len(values) != len(tokens):
            return f"{name} has {len(values)} values for {len(tokens)} tokens"
    if any(end > len(row["targets"]) for _, end in row["offsets"]):
        return "offsets lie outside targets"
    messages = row.get("messages")
    if messages is not None and not _is_list_of(_is_object)(messages):
        return "messages is not a list of objects"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_span(value: Any) -> bool:
    return _is_list_of(_is_count)(value) and len(value) == 2 and value[0] <= value[1]


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_metrics(value: Any) -> bool:
    return _is_object(value) and all(map(_is_text, value)) and all(map(_is_number, value.values()))


def _is_list_of(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(kind, value))


def _or_none(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or kind(value)


_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("example", "candidate"), (_is_count, "a whole number of 0 or more")),
    **dict.fromkeys(("inputs", "targets"), (_is_text, "a text")),
    **dict.fromkeys(("reference", "id"), (_or_none(_is_text), "a text or null")),
    "truncated": (_is_flag, "true or false"),
    **dict.fromkeys(("return", "normalised_return", "v_0", "log_likelihood"), (_is_number, "a number")),
    "centred_return": (_or_none(_is_number), "a number or null"),
    "metrics": (_is_metrics, "an object of numbers"),
}
_BY_TOKEN: Mapping[str, Callable[[Any], bool]] = {
    "tokens": _is_count,
    "pieces": _is_text,
    "offsets": _is_span,
    **dict.fromkeys(("q", "v", "log_prob", "entropy", "reference_log_prob"), _is_number),
    "reward": _or_none(_is_number),
}

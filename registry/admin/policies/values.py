"""Converts the text that officers type as the value of a condition to JSON, and back.

The field's kind and the operator decide how a text is read. A list is separated by commas; a value
with a comma needs double quotes. A pair is `18 to 6`. A payload value is a number, true, false or a
text; a text that looks like a number needs double quotes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from atp.judging.policy.fields import Field, FieldKind, Operand, Operator

__all__ = ["format_value", "hint_for", "parse_value"]

NUMBER_MAX_CHARS = 40  # longer than any limit or amount
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_PAIR = re.compile(r"\s*,\s*|\s+to\s+|\s+and\s+")
_FLAGS = {"true": True, "yes": True, "false": False, "no": False}
_NUMBERS = {FieldKind.NUMBER, FieldKind.HOUR}


def parse_value(field: Field, operator: Operator, text: str) -> Any:
    """Return the JSON value of `text`. Raises `ValueError` with a sentence for the officer."""
    text = text.strip()
    if operator.operand is Operand.FLAG:
        return _flag(text or "yes")
    if not text:
        raise ValueError(f"A value is needed: {hint_for(field, operator)}.")
    if operator.operand is Operand.MANY:
        return [_scalar(field, part) for part in _split_list(text)]
    if operator.operand is Operand.PAIR:
        parts = _PAIR.split(text)
        if len(parts) != 2:
            raise ValueError("Write two values, such as 18 to 6.")
        return [_scalar(field, part) for part in parts]
    return _scalar(field, text)


def format_value(field: Field, operator: Operator, value: Any) -> str:
    """Return the text that `parse_value` turns back into `value`."""
    if operator.operand is Operand.FLAG:
        return "no" if value is False else "yes"
    if operator.operand is Operand.PAIR and isinstance(value, list) and len(value) == 2:
        return " to ".join(_text_of(field, part) for part in value)
    if operator.operand is Operand.MANY and isinstance(value, list):
        return ", ".join(_quoted(_text_of(field, part)) for part in value)
    return "" if value is None else _text_of(field, value)


def hint_for(field: Field, operator: Operator) -> str:
    """Return a short hint of what to type."""
    if operator.operand is Operand.FLAG:
        return "yes or no"
    one = _one_hint(field)
    if operator.operand is Operand.MANY:
        return f"comma-separated, each {one}"
    if operator.operand is Operand.PAIR:
        return f"two values, such as {'18 to 6' if field.kind is FieldKind.HOUR else '10 to 20'}"
    return one


def _one_hint(field: Field) -> str:
    if field.choices:
        return f"one of {', '.join(field.choices)}"
    if field.kind in _NUMBERS:
        return f"a number ({field.unit})" if field.unit else "a number"
    if field.kind is FieldKind.BOOLEAN:
        return "yes or no"
    if field.kind is FieldKind.ANY:
        return "a number, true, false or a text"
    return "a text"


def _scalar(field: Field, text: str) -> Any:
    if field.kind in _NUMBERS:
        return _number(text)
    if field.kind is FieldKind.BOOLEAN:
        return _flag(text)
    return _any(text) if field.kind is FieldKind.ANY else text


def _any(text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if _NUMBER.fullmatch(text):
        return _number(text)
    return {"true": True, "false": False}.get(text, text)


def _number(text: str) -> int | float:
    if len(text) > NUMBER_MAX_CHARS or not _NUMBER.fullmatch(text):
        raise ValueError(f"“{text[:NUMBER_MAX_CHARS]}” is not a number.")
    number = json.loads(text)
    assert isinstance(number, int | float)
    return number


def _flag(text: str) -> bool:
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("Write yes or no.") from None


def _split_list(text: str) -> list[str]:
    rows = list(csv.reader(io.StringIO(" ".join(text.splitlines())), skipinitialspace=True))
    parts = [part.strip() for part in rows[0]]
    if not all(parts):
        raise ValueError("The list has an empty value; remove the extra comma.")
    return parts


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if "," in text or '"' in text else text


def _text_of(field: Field, value: Any) -> str:
    if isinstance(value, bool):
        if field.kind is FieldKind.ANY:
            return "true" if value else "false"
        return "yes" if value else "no"
    if isinstance(value, str):
        looks_typed = field.kind is FieldKind.ANY and not isinstance(_any(value), str)
        already_quoted = field.kind is FieldKind.ANY and _any(value) != value
        return f'"{value}"' if looks_typed or already_quoted else value
    return json.dumps(value)

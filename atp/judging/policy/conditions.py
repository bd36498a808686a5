"""One condition of a rule, compiled to a function that answers true, false or unknown.

Types are strict: `true` is not 1 and `"1"` is not 1. A value that is missing, or of another type
than the condition needs, makes the condition unknown (`None`), never false
(docs/design/trust.md#policies). A missing value and JSON's null are the same: `None`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import re2

from atp.errors import MalformedDocument, excerpt
from atp.judging.policy.fields import (
    OPERATORS,
    Argument,
    Field,
    FieldKind,
    Operand,
    Operator,
    operators_for,
)
from atp.types import DataSensitivity, TrustLevel
from atp.wire.json_values import is_number, is_whole
from atp.wire.member_paths import below

__all__ = ["Check", "compile_check"]

LIST_MAX_VALUES = 1_000  # more than officers type; use tags instead of a longer list
TEXT_MAX_CHARS = 1_000  # of an operand; the longest id is 128
PATTERN_MAX_BYTES = 1 << 20  # of memory for one compiled pattern and its automaton
HOURS_A_DAY = 24

Check = Callable[[object], bool | None]
_Test = Callable[[Any], bool]
_Coerce = Callable[[object], Any]


def compile_check(field: Field, operator_name: object, value: object) -> Check:
    """Return the function that answers whether a value of `field` fulfils the condition.

    Raises `MalformedDocument` with the fault and the correction; the caller adds policy and rule.
    """
    operator = _operator(field, operator_name)
    with below("value"):
        return _check_of(field, operator, value)


def _check_of(field: Field, operator: Operator, value: object) -> Check:
    if operator.operand is Operand.FLAG:
        return _existence(value)
    if operator.name == "between" and field.kind is FieldKind.HOUR:
        return _guarded(_as_hour, _between_hours(value))
    if operator.name in ("contains", "starts_with") and value == "":
        raise MalformedDocument(f"{operator.name} with an empty text always holds; give a text")
    if operator.name == "contains":
        return _containment(field, _operand(field, value, _as_text))
    coerce, test = _comparison(field, operator, value)
    return _guarded(coerce, test)


def _operator(field: Field, name: object) -> Operator:
    operator = OPERATORS.get(name) if isinstance(name, str) else None
    if operator is not None and field.kind in operator.kinds:
        return operator
    offered = ", ".join(offer.name for offer in operators_for(field))
    problem = "is not an operator" if operator is None else f"does not apply to {field.name}"
    raise MalformedDocument(
        f"operator {excerpt(name)} {problem}; use one of: {offered}", field="operator"
    )


def _existence(value: object) -> Check:
    wanted = True if value is None else value
    if type(wanted) is not bool:
        raise MalformedDocument(f"exists takes true or false, not {excerpt(value)}")
    return lambda seen: (seen is not None) is wanted


def _guarded(coerce: _Coerce, test: _Test) -> Check:
    def check(seen: object) -> bool | None:
        comparable = coerce(seen)
        return None if comparable is None else test(comparable)

    return check


def _comparison(field: Field, operator: Operator, value: object) -> tuple[_Coerce, _Test]:
    if operator.operand is Operand.PAIR:
        coerce = _coerce_for(field, operator, value)
        low, high = _pair(field, value, coerce)
        return coerce, lambda seen: low <= seen <= high
    if operator.operand is Operand.MANY:
        return _membership(field, operator, _listed(value))
    coerce = _coerce_for(field, operator, value)
    operand = _operand(field, value, coerce)
    if operator.name == "matches":
        return _as_utf8, _full_match(operand)
    return coerce, _TESTS[operator.name](operand)


def _membership(
    field: Field, operator: Operator, values: Sequence[object]
) -> tuple[_Coerce, _Test]:
    several = field.kind is FieldKind.TEXTS or operator.name == "contains_all"
    one = _as_text if several else _coerce_for(field, operator, values[0])
    wanted = frozenset(_operand(field, value, one) for value in values)
    if operator.name == "contains_all":
        return _as_texts, wanted.issubset
    if several:
        return _as_texts, (
            wanted.isdisjoint
            if operator.name == "not_in"
            else lambda seen: not wanted.isdisjoint(seen)
        )
    if operator.name == "not_in":
        return one, lambda seen: seen not in wanted
    return one, wanted.__contains__


def _containment(field: Field, part: str) -> Check:
    def check(seen: object) -> bool | None:
        if isinstance(seen, str) and field.kind is not FieldKind.TEXTS:
            return part in seen
        elements = _as_texts(seen) if field.kind is not FieldKind.TEXT else None
        return None if elements is None else part in elements

    return check


def _between_hours(value: object) -> _Test:
    """Return the test whether an hour is in [start, end), across midnight if start is later.

    The end may be 24. Raises `MalformedDocument` unless `value` is two different hours.
    """
    ends = _listed(value)
    start, end = (_as_hour(ends[0]), ends[-1]) if len(ends) == 2 else (None, None)
    if is_whole(end, least=HOURS_A_DAY, most=HOURS_A_DAY):
        end = 0
    end = _as_hour(end)
    if start is None or end is None or start == end:
        raise MalformedDocument(
            f"between takes two different hours from 0 to 23, such as [18, 6], not {_show(value)}"
        )
    if start < end:
        return lambda hour: start <= hour < end
    return lambda hour: hour >= start or hour < end


def _full_match(pattern: str) -> _Test:
    options = re2.Options()
    options.max_mem = PATTERN_MAX_BYTES
    options.log_errors = False
    # If '.' did not match a line end, 'secret.*' would not match "secret\\n...".
    options.dot_nl = True
    try:
        compiled = re2.compile(pattern.encode(), options)
    except re2.error as exc:
        raise MalformedDocument(
            f"{excerpt(pattern)} is not an RE2 pattern; RE2 has no look-around and no"
            " back-references"
        ) from exc
    return lambda seen: compiled.fullmatch(seen) is not None


def _pair(field: Field, value: object, coerce: _Coerce) -> tuple[Any, Any]:
    ends = _listed(value)
    low, high = (_operand(field, end, coerce) for end in ends) if len(ends) == 2 else (1, 0)
    if low > high:
        raise MalformedDocument(f"between takes [lowest, highest], not {_show(value)}")
    return low, high


def _listed(value: object) -> Sequence[object]:
    # With an empty list, not_in would hold for every value. So an empty list is refused.
    if isinstance(value, list | tuple) and 1 <= len(value) <= LIST_MAX_VALUES:
        return value
    raise MalformedDocument(
        f"a list of 1 to {LIST_MAX_VALUES} values is needed, not {_show(value)}"
    )


def _operand(field: Field, value: object, coerce: _Coerce) -> Any:
    comparable = coerce(value)
    known = not field.choices or value in field.choices
    if comparable is None or not known:
        raise MalformedDocument(f"{_show(value)} can't be compared with {_expected(field)}")
    if isinstance(comparable, str) and len(comparable) > TEXT_MAX_CHARS:
        raise MalformedDocument(f"a text of at most {TEXT_MAX_CHARS} characters is needed")
    return comparable


def _expected(field: Field) -> str:
    if field.choices:
        return f"{field.name}; use one of: {', '.join(field.choices)}"
    if field.argument is Argument.POINTER:
        return "a payload value; give texts, numbers, or true and false, all of one type"
    return f"{field.name}; it takes {_NOUNS[field.kind]}"


def _show(value: object) -> str:
    return excerpt(str(value)) if isinstance(value, list | tuple) else excerpt(value)


def _coerce_for(field: Field, operator: Operator, value: object) -> _Coerce:
    """Return the function that makes a value comparable. For the payload, the operand decides."""
    if field.kind is not FieldKind.ANY:
        return _COERCE[field.kind]
    if operator.name in ("starts_with", "matches"):
        return _as_text
    if operator.name not in ("equals", "not_equals", "in", "not_in") or not isinstance(
        value, bool | str
    ):
        return _as_number
    return _as_boolean if isinstance(value, bool) else _as_text


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _as_utf8(value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:  # a lone surrogate; no strictly parsed text has one
        return None


def _as_number(value: object) -> int | float | None:
    return value if is_number(value) else None


def _as_hour(value: object) -> int | None:
    return value if is_whole(value, least=0, most=HOURS_A_DAY - 1) else None


def _as_boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_texts(value: object) -> frozenset[str] | None:
    if not isinstance(value, list | tuple | frozenset | set):
        return None
    return frozenset(value) if all(isinstance(item, str) for item in value) else None


def _as_level(value: object) -> int | None:
    return _LEVEL_RANKS.get(value) if isinstance(value, str) else None


def _as_sensitivity(value: object) -> int | None:
    return _SENSITIVITY_RANKS.get(value) if isinstance(value, str) else None


_LEVEL_RANKS: Mapping[str, int] = {level.value: level.rank for level in TrustLevel}
_SENSITIVITY_RANKS: Mapping[str, int] = {level.value: level.rank for level in DataSensitivity}

_COERCE: Mapping[FieldKind, _Coerce] = {
    FieldKind.TEXT: _as_text,
    FieldKind.CHOICE: _as_text,
    FieldKind.NUMBER: _as_number,
    FieldKind.HOUR: _as_hour,
    FieldKind.BOOLEAN: _as_boolean,
    FieldKind.LEVEL: _as_level,
    FieldKind.SENSITIVITY: _as_sensitivity,
    FieldKind.TEXTS: _as_texts,
}

_NOUNS: Mapping[FieldKind, str] = {
    FieldKind.TEXT: "a text",
    FieldKind.TEXTS: "texts",
    FieldKind.NUMBER: "a number",
    FieldKind.HOUR: "an hour from 0 to 23",
    FieldKind.BOOLEAN: "true or false",
}

_TESTS: Mapping[str, Callable[[Any], _Test]] = {
    "equals": lambda operand: lambda seen: bool(seen == operand),
    "not_equals": lambda operand: lambda seen: bool(seen != operand),
    "less_than": lambda operand: lambda seen: bool(seen < operand),
    "at_most": lambda operand: lambda seen: bool(seen <= operand),
    "at_least": lambda operand: lambda seen: bool(seen >= operand),
    "greater_than": lambda operand: lambda seen: bool(seen > operand),
    "starts_with": lambda operand: lambda seen: cast(str, seen).startswith(operand),
}

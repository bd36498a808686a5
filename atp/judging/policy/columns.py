"""Rules by field: for each value of a field, the rules that it does not rule out, as bits.

The bits of a value are cached, because most fields have few values. Each cache is bounded, in
entries and in the size of a value, because values come from senders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atp.judging.policy.conditions import Check
from atp.judging.policy.document import ParsedCondition, ParsedRule
from atp.judging.policy.fields import ACTIONS, Argument, FieldKind
from atp.judging.policy.readers import FieldKey, read_payload, read_time, recorded_payload_value
from atp.judging.policy.recorded import HOLDS, RecordedPayload, RecordedValue

__all__ = ["Columns", "build_columns", "recordable"]

MASKS_MAX = 4_096  # cached values for each field
TEXT_MAX_CHARS = 256  # a longer text is not cached
TEXTS_MAX = 64  # a longer list is not cached

# 1 and True are the same key of a dict but different values for a rule. So the cache keys of these
# kinds contain the type.
_TYPED = frozenset({FieldKind.NUMBER, FieldKind.HOUR, FieldKind.BOOLEAN, FieldKind.ANY})


@dataclass(slots=True)
class _Test:
    """A condition, the rules that have it, and those of them that don't match if it is unknown."""

    check: Check
    rules: int = 0
    strict_rules: int = 0


class Column:
    """One field, with all conditions on it in a set of rules."""

    __slots__ = ("_everything", "_tests", "_typed", "key", "masks")

    def __init__(self, key: FieldKey, tests: Sequence[_Test], everything: int) -> None:
        self.key = key
        self.masks: dict[object, int] = {}
        self._tests = tuple(tests)
        self._everything = everything
        self._typed = key.field.kind in _TYPED

    def mask(self, value: object) -> int:
        """Return the bits of the rules that `value` does not rule out, cached if possible."""
        if isinstance(value, list):
            value = tuple(value)
        if not _is_small(value):
            return self._compute(value)
        key = (value.__class__, value) if self._typed else value
        known = self.masks.get(key)
        if known is None:
            if len(self.masks) >= MASKS_MAX:
                self.masks.clear()
            known = self.masks[key] = self._compute(value)
        return known

    def results(self, value: object) -> list[bool | None]:
        """Return the result of each condition on the field; `None` is unknown."""
        if isinstance(value, RecordedValue):
            return value.results
        return [test.check(value) for test in self._tests]

    def _compute(self, value: object) -> int:
        mask = self._everything
        for test, result in zip(self._tests, self.results(value), strict=True):
            if result is None:
                mask &= ~test.strict_rules
            elif not result:
                mask &= ~test.rules
        return mask


class Columns:
    """All fields that a set of rules uses. `keys` are in the order of the values of `match`."""

    __slots__ = (
        "_by_name", "_derived", "_everything", "_payload", "_typed", "_untyped", "keys",
        "reads_payload",
    )  # fmt: skip

    def __init__(self, columns: Sequence[Column], everything: int) -> None:
        looked_up = [c for c in columns if c.key.field.argument is Argument.NONE]
        untyped = [c for c in looked_up if c.key.field.kind not in _TYPED]
        typed = [c for c in looked_up if c.key.field.kind in _TYPED]
        self._derived = [c for c in columns if c.key.field.argument is not Argument.NONE]
        self._untyped = [(c.key.text, c.masks, c) for c in untyped]
        self._typed = [(c.key.text, c.masks, c) for c in typed]
        self._everything = everything
        self.keys = tuple(c.key for c in (*untyped, *typed, *self._derived))
        self._payload = tuple(column for column in columns if column.key.tokens)
        self.reads_payload = bool(self._payload)
        self._by_name = {column.key.text: column for column in columns}

    def match(self, context: Mapping[str, Any], payload: object) -> tuple[int, tuple[object, ...]]:
        """Return the bits of the matching rules, and the value of each field in `keys`."""
        matching = self._everything
        values: list[object] = []
        # The look-up is repeated here instead of calling `mask`, because a call doubles the cost.
        for name, masks, column in self._untyped:
            value = context.get(name)
            values.append(value)
            try:
                matching &= masks[value]
            except (KeyError, TypeError):
                matching &= column.mask(value)
        for name, masks, column in self._typed:
            value = context.get(name)
            values.append(value)
            try:
                matching &= masks[value.__class__, value]
            except (KeyError, TypeError):
                matching &= column.mask(value)
        for column in self._derived:
            value = read(column.key, context, payload)
            values.append(value)
            matching &= column.mask(value)
        return matching, tuple(values)

    def holds(self, field: str, value: object) -> str:
        """Return the marks of `RecordedValue.holds` for a value of a field that rules use."""
        return _marks(self._by_name[field], value)

    def payload_record(self, payload: object) -> dict[str, Any]:
        """Return the payload values that rules use, by field, each as a `RecordedValue` writes it.

        A value that is not there is left out.
        """
        values = ((column, read(column.key, {}, payload)) for column in self._payload)
        return {
            column.key.text: {
                **recordable(column.key, value, payload),
                "holds": _marks(column, value),
            }
            for column, value in values
            if value is not None
        }


def _marks(column: Column, value: object) -> str:
    return "".join(HOLDS[result] for result in column.results(value))


def build_columns(rules: Sequence[ParsedRule]) -> Columns:
    """Return the columns of `rules`, the first being the lowest bit. Merge equal conditions."""
    tests: dict[FieldKey, dict[str, _Test]] = {}
    for bit, rule in enumerate(rules):
        strict = not ACTIONS[rule.action].matches_unknown
        for condition in rule.conditions:
            of_field = tests.setdefault(condition.field, {})
            test = of_field.setdefault(_identity(condition), _Test(condition.check))
            test.rules |= 1 << bit
            test.strict_rules |= strict << bit
    everything = (1 << len(rules)) - 1
    return Columns(
        [Column(key, tuple(by.values()), everything) for key, by in tests.items()], everything
    )


def read(key: FieldKey, context: Mapping[str, Any], payload: object) -> object:
    """Return the value of a field, or `None` without one."""
    if key.field.argument is Argument.POINTER:
        if isinstance(payload, RecordedPayload):
            return payload.values.get(key.text)
        return read_payload(payload, key.tokens)
    if key.field.argument is Argument.ZONE:
        return read_time(key, context)
    return context.get(key.text)


def recordable(key: FieldKey, value: object, payload: object) -> Any:
    """Return `value` in the form for a record: JSON values, and for payload values only a hash."""
    if value is None:
        return None
    if isinstance(value, RecordedValue):
        return value.to_record()
    if key.tokens:
        return recorded_payload_value(payload, key, value)
    if value.__class__ is str or value.__class__ is int:  # the common case, and fast
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        texts = [str(item) for item in value if isinstance(item, str)]
        if len(texts) == len(value):
            return sorted(texts) if isinstance(value, set | frozenset) else texts
    # No rule can use this type, so every condition on it was unknown. The record says so.
    return {"unusable": type(value).__name__}


def _identity(condition: ParsedCondition) -> str:
    return f"{condition.operator} {json.dumps(condition.value)}"


def _is_small(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TEXT_MAX_CHARS
    if isinstance(value, tuple | frozenset):
        return len(value) <= TEXTS_MAX and all(
            isinstance(item, str) and len(item) <= TEXT_MAX_CHARS for item in value
        )
    if isinstance(value, int):
        return value.bit_length() <= 64
    return value is None or isinstance(value, float)

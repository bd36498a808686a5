"""What officers type and read: values as text, rules and changes in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp.judging.policy import BASELINE, FIELDS, OPERATORS, FieldKind, operators_for
from registry.admin.policies.values import format_value, hint_for, parse_value
from registry.admin.policies.wording import condition_in_words, differences_in_words, rule_in_words

_WORDS = st.text('abcXYZ019.-_*," ', min_size=1, max_size=12).map(str.strip).filter(bool)
_NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
_SCALARS = {
    FieldKind.TEXT: _WORDS,
    FieldKind.TEXTS: _WORDS,
    FieldKind.CHOICE: _WORDS,
    FieldKind.LEVEL: st.sampled_from(FIELDS["sender.level"].choices),
    FieldKind.SENSITIVITY: st.sampled_from(FIELDS["data.sensitivity"].choices),
    FieldKind.NUMBER: _NUMBERS,
    FieldKind.HOUR: st.integers(0, 23),
    FieldKind.BOOLEAN: st.booleans(),
    FieldKind.ANY: st.one_of(_WORDS, _NUMBERS, st.booleans()),
}


@st.composite
def _conditions(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    field = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
    operator = draw(st.sampled_from(operators_for(field)))
    scalar = _SCALARS[field.kind]
    if operator.operand == "pair" and field.kind in (FieldKind.ANY, FieldKind.NUMBER):
        scalar = st.integers(-1000, 1000)
    value = {
        "one": scalar,
        "many": st.lists(scalar, min_size=1, max_size=4),
        "pair": st.lists(scalar, min_size=2, max_size=2),
        "flag": st.booleans(),
    }[operator.operand]
    return field, operator, draw(value)


@given(_conditions())
def test_it_reads_back_every_value_that_it_writes(condition: tuple[Any, Any, Any]) -> None:
    field, operator, value = condition
    read = parse_value(field, operator, format_value(field, operator, value))
    assert read == value
    assert [type(part) for part in _parts(read)] == [type(part) for part in _parts(value)]


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("field", "operator", "text", "value"),
    [
        ("sender.score", "at_least", " 85 ", 85),
        ("time.hour", "between", "18 to 6", [18, 6]),
        ("time.hour", "between", "18,6", [18, 6]),
        ("data.sensitivity", "between", "internal and restricted", ["internal", "restricted"]),
        ("sender.id", "in", 'alpha, "b, c"', ["alpha", "b, c"]),
        ("message.lifespan_exceeded", "equals", "Yes", True),
        ("sender.level", "exists", "", True),
        ("sender.level", "exists", "no", False),
        ("payload", "equals", "42", 42),
        ("payload", "equals", '"42"', "42"),
        ("payload", "equals", "true", True),
        ("payload", "equals", "truly", "truly"),
    ],
)
def test_it_reads_values_by_the_kind_of_the_field(
    field: str, operator: str, text: str, value: Any
) -> None:
    assert parse_value(FIELDS[field], OPERATORS[operator], text) == value


@pytest.mark.parametrize(
    ("field", "operator", "text"),
    [
        ("sender.score", "at_least", ""),
        ("sender.score", "at_least", "eighty"),
        ("sender.score", "at_least", "0x10"),
        ("sender.score", "in", "1,,2"),
        ("time.hour", "between", "18"),
        ("message.lifespan_exceeded", "equals", "perhaps"),
        ("sender.level", "exists", "perhaps"),
        ("sender.score", "at_least", "9" * 50),
    ],
)
def test_rejects_values_that_are_none_of_the_kind(field: str, operator: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_value(FIELDS[field], OPERATORS[operator], text)


def test_it_hints_at_what_to_type_for_every_pair_of_field_and_operator() -> None:
    hints = {
        hint_for(field, operator) for field in FIELDS.values() for operator in operators_for(field)
    }
    assert "one of sandboxed, unverified, verified, certified" in hints
    assert all(hints)


def test_it_says_rules_as_sentences() -> None:
    said = [rule_in_words(rule) for policy in BASELINE for rule in policy["rules"]]
    assert "deny when sender level is sandboxed and message type is broadcast" in said
    throttle = {"limit": 1, "per_seconds": 60}
    rule = {"action": "throttle", "always": True, "conditions": [], "throttle": throttle}
    assert rule_in_words(rule) == "throttle above 1 envelope of a sender in 60 seconds always"


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (
            ("time.hour:Europe/Berlin", "between", [18, 6]),
            "time hour in Europe/Berlin is between 18 and 6",
        ),
        (("payload:/data/amount", "at_most", 5), "payload /data/amount is at most 5"),
        (("recipient.level", "exists", False), "recipient level is missing"),
        (("no.such", "equals", 1), "no.such equals 1"),
    ],
)
def test_it_says_conditions(condition: tuple[str, str, Any], said: str) -> None:
    field, operator, value = condition
    assert condition_in_words({"field": field, "operator": operator, "value": value}) == said


def test_it_says_what_a_version_changed() -> None:
    rule = {"name": "A", "action": "deny", "severity": "low", "priority": 100, "always": True}
    before: dict[str, Any] = {
        "name": "P",
        "mode": "monitor",
        "mandatory": False,
        "priority": 1,
        "rules": [rule],
    }
    gone = {**rule, "name": "B"}
    after: dict[str, Any] = {
        **before,
        "mode": "enforce",
        "rules": [{**rule, "severity": "high"}, gone],
    }
    assert differences_in_words(before, before) == []
    assert differences_in_words(None, before) == ["created with 1 rule"]
    assert differences_in_words(before, after) == [
        "mode: monitor → enforce",
        "rule “A”, severity: low → high",
        "rule “B” added: deny always",
    ]
    assert differences_in_words(after, {**after, "rules": after["rules"][::-1]}) == [
        "rules are in another order"
    ]

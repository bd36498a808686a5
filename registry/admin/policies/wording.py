"""Rules, conditions and changes between versions in words, for officers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atp.judging.policy import ACTIONS, FIELDS, OPERATORS, Operand, split_field
from registry.admin.policies.values import format_value

__all__ = ["condition_in_words", "differences_in_words", "rule_in_words"]

_SETTINGS = ("mode", "mandatory", "priority", "description")


def rule_in_words(rule: Mapping[str, Any]) -> str:
    """Return one rule of a document in words: “deny when sender level is sandboxed”."""
    said = [condition_in_words(condition) for condition in rule.get("conditions", ())]
    when = f"when {' and '.join(said)}" if said else "always" if rule.get("always") else "never"
    return f"{_action_in_words(rule)} {when}"


def condition_in_words(condition: Mapping[str, Any]) -> str:
    """Return one condition in words; one with an unknown field or operator stays as it is."""
    name, argument = split_field(str(condition.get("field", "")))
    field, operator = FIELDS.get(name), OPERATORS.get(condition.get("operator", ""))
    if field is None or operator is None:
        return " ".join(str(condition.get(part, "")) for part in ("field", "operator", "value"))
    subject = field.label.replace(": ", " ").lower()
    if argument:
        subject = f"payload {argument}" if name == "payload" else f"{subject} in {argument}"
    if operator.operand is Operand.FLAG:
        return f"{subject} is {'missing' if condition.get('value') is False else 'known'}"
    value = format_value(field, operator, condition.get("value"))
    if operator.operand is Operand.PAIR:
        value = value.replace(" to ", " and ")
    return f"{subject} {operator.label} {value}"


def differences_in_words(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each change from `before` to `after`; rules are compared by name."""
    if before is None:
        return [f"created with {_count(len(after.get('rules', ())), 'rule')}"]
    return [*_settings_changed(before, after), *_rules_changed(before, after)]


def _action_in_words(rule: Mapping[str, Any]) -> str:
    name = str(rule.get("action", ""))
    action = ACTIONS.get(name)
    words = action.label.lower() if action else name
    throttle = rule.get("throttle")
    if throttle:
        words += (
            f" above {_count(throttle['limit'], 'envelope')}"
            f" of a sender in {_count(throttle['per_seconds'], 'second')}"
        )
    return words


def _settings_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    if before.get("name") != after.get("name"):
        yield f"renamed from “{before.get('name')}” to “{after.get('name')}”"
    for name in _SETTINGS:
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"{name}: {_plain(old)} → {_plain(new)}"


def _rules_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = _by_name(before.get("rules", ())), _by_name(after.get("rules", ()))
    for name, rule in old.items():
        if name not in new:
            yield f"rule “{name}” removed: {rule_in_words(rule)}"
    for name, rule in new.items():
        if name not in old:
            yield f"rule “{name}” added: {rule_in_words(rule)}"
        elif rule != old[name]:
            yield from _rule_changed(name, old[name], rule)
    kept = [name for name in old if name in new]
    if kept != [name for name in new if name in old]:
        yield "rules are in another order"


def _rule_changed(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for what, before, after in (
        ("action", _action_in_words(old), _action_in_words(new)),
        ("severity", old.get("severity"), new.get("severity")),
        ("priority", old.get("priority"), new.get("priority")),
        ("for everything", old.get("always", False), new.get("always", False)),
    ):
        if before != after:
            yield f"rule “{name}”, {what}: {_plain(before)} → {_plain(after)}"
    said = [condition_in_words(condition) for condition in old.get("conditions", ())]
    says = [condition_in_words(condition) for condition in new.get("conditions", ())]
    yield from (f"rule “{name}”: no longer when {words}" for words in said if words not in says)
    yield from (f"rule “{name}”: only when {words}" for words in says if words not in said)


def _by_name(rules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(rule.get("name")): rule for rule in rules}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "nothing" if value in (None, "") else str(value)

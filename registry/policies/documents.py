"""Policy documents as versions store them: every member is present, so two versions compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atp.errors import MalformedDocument
from registry.plain_text import check_text

__all__ = ["normalise"]


def normalise(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` with all defaults written out and its texts in their canonical form.

    Raises `MalformedDocument` if it is not an object, its rules are not a list of objects, or a
    text has a character that can't be seen.
    """
    if not isinstance(document, Mapping):
        raise MalformedDocument("a policy must be a JSON object")
    rules = document.get("rules", ())
    if not isinstance(rules, list | tuple) or not all(isinstance(r, Mapping) for r in rules):
        raise MalformedDocument("rules must be a list of objects", field="rules")
    filled = {"description": "", "mode": "monitor", "mandatory": False, "priority": 100}
    whole = {**filled, **document, "rules": [_normalise_rule(rule) for rule in rules]}
    return {name: _checked(value, name) for name, value in whole.items()}


def _normalise_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    filled = {"severity": "low", "priority": 100, "always": False, "conditions": []}
    kept = {name: value for name, value in rule.items() if name != "throttle" or value is not None}
    return {**filled, **kept}


def _checked(value: Any, field: str) -> Any:
    """Return a member with each text in it in its canonical form; `field` is its path."""
    if isinstance(value, str):
        return check_text(value, field, lines=field == "description")
    if isinstance(value, Mapping):
        return {name: _checked(member, f"{field}.{name}") for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(item, f"{field}.{place}") for place, item in enumerate(value)]
    return value

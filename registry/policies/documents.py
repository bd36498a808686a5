"""Policy documents as versions store them: every member is present, so two versions compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atp.errors import MalformedDocument

__all__ = ["normalise"]


def normalise(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` with all defaults written out.

    Raises `MalformedDocument` if it is not an object or its rules are not a list of objects.
    """
    if not isinstance(document, Mapping):
        raise MalformedDocument("a policy must be a JSON object")
    rules = document.get("rules", ())
    if not isinstance(rules, list | tuple) or not all(isinstance(r, Mapping) for r in rules):
        raise MalformedDocument("rules must be a list of objects", field="rules")
    filled = {"description": "", "mode": "monitor", "mandatory": False, "priority": 100}
    return {**filled, **document, "rules": [_normalise_rule(rule) for rule in rules]}


def _normalise_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    filled = {"severity": "low", "priority": 100, "always": False, "conditions": []}
    kept = {name: value for name, value in rule.items() if name != "throttle" or value is not None}
    return {**filled, **kept}

"""Policies, as docs/policies.md and docs/design/trust.md#policies say them: rule by rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

Values = Mapping[str, Any]
Rule = Mapping[str, Any]

LEVELS = ("sandboxed", "unverified", "verified", "certified")
SENSITIVITIES = ("public", "internal", "confidential", "restricted")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
RANKED = {
    "sender.level": LEVELS,
    "recipient.level": LEVELS,
    "chain.lowest_level": LEVELS,
    "data.sensitivity": SENSITIVITIES,
}
SEVERAL = {
    "sender.capabilities", "recipient.capabilities", "sender.tags", "recipient.tags",
    "message.required_capabilities", "message.allowed_tools",
}  # fmt: skip
MARKS = {"1": True, "0": False, "?": None}


@dataclass(frozen=True)
class Marked:
    """A value of which an entry has only the results of the conditions (`holds`)."""

    holds: str


@dataclass
class Outcome:
    """What the policies decided, with all rules that matched."""

    action: str
    code: str
    rule: Rule | None
    matched: list[Rule]
    monitored: list[Rule]


def rules_of(documents: Iterable[Mapping[str, Any]]) -> list[Rule]:
    """Return the rules of a set in their order: mandatory policies first, then by priority."""
    ordered = sorted(documents, key=lambda d: (not d.get("mandatory"), d["priority"], d["name"]))
    return [
        {**rule, "policy": d["name"], "enforced": d["mode"] == "enforce"}
        for d in ordered
        for rule in sorted(d["rules"], key=lambda rule: rule["priority"])
    ]


def used_by(rules: Iterable[Rule]) -> set[str]:
    """Return the fields that the conditions of these rules name."""
    return {c["field"] for rule in rules for c in rule["conditions"]}


def decide(rules: list[Rule], values: Values, over: Callable[[Rule], bool]) -> Outcome:
    """Return the outcome for these values of fields; `over` is whether a limit is reached."""
    hits = [rule for rule in rules if _matches(rule, rules, values)]
    matched = [rule for rule in hits if rule["enforced"]]
    monitored = [rule for rule in hits if not rule["enforced"]]
    by_action = {a: [r for r in matched if r["action"] == a] for a in ("deny", "allow", "throttle")}
    if by_action["deny"]:
        return Outcome("deny", "policy.denied", by_action["deny"][0], matched, monitored)
    if not by_action["allow"]:
        return Outcome("deny", "policy.none", None, matched, monitored)
    for rule in by_action["throttle"]:
        if over(rule):
            return Outcome("throttle", "policy.throttled", rule, matched, monitored)
    return Outcome("allow", "", by_action["allow"][0], matched, monitored)


def _matches(rule: Rule, rules: list[Rule], values: Values) -> bool:
    unknown_holds = rule["action"] != "allow"
    results = (_result(condition, rules, values) for condition in rule["conditions"])
    return all(unknown_holds if result is None else result for result in results)


def _result(condition: Mapping[str, Any], rules: list[Rule], values: Values) -> bool | None:
    field, operator = condition["field"], condition["operator"]
    wanted, seen = condition.get("value"), _seen(field, values)
    if isinstance(seen, Marked):
        return MARKS[seen.holds[_place(condition, rules)]]
    if operator == "exists":
        return (seen is not None) is (True if wanted is None else wanted)
    return None if seen is None else _test(field, operator, wanted, seen)


def _place(condition: Mapping[str, Any], rules: list[Rule]) -> int:
    """Return the place of a condition among the different ones on its field."""
    known: list[tuple[str, str]] = []
    for rule in rules:
        for other in rule["conditions"]:
            key = (other["operator"], repr(other.get("value")))
            if other["field"] == condition["field"] and key not in known:
                known.append(key)
    return known.index((condition["operator"], repr(condition.get("value"))))


def _seen(field: str, values: Values) -> Any:
    name, _, zone = field.partition(":")
    if name not in ("time.hour", "time.weekday"):
        return values.get(field)
    now = datetime.fromtimestamp(values["time.now"] // 1, UTC).astimezone(ZoneInfo(zone or "UTC"))
    return now.hour if name == "time.hour" else WEEKDAYS[now.weekday()]


def _test(field: str, operator: str, wanted: Any, seen: Any) -> bool | None:
    if field in RANKED:
        ranks = RANKED[field]
        wanted = (
            [ranks.index(one) for one in wanted]
            if isinstance(wanted, list)
            else ranks.index(wanted)
        )
        seen = ranks.index(seen)
    if operator == "contains":
        return bool(wanted in seen)
    if field in SEVERAL or operator == "contains_all":
        common = set(wanted) & set(seen)
        if operator == "contains_all":
            return common == set(wanted)
        return bool(common) is (operator == "in")
    if field.startswith("time.hour") and operator == "between":
        first, last = wanted[0], wanted[1] % 24
        return bool(first <= seen < last if first < last else seen >= first or seen < last)
    return _TESTS[operator](seen, wanted)


_TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "equals": lambda seen, wanted: bool(seen == wanted),
    "not_equals": lambda seen, wanted: bool(seen != wanted),
    "in": lambda seen, wanted: seen in wanted,
    "not_in": lambda seen, wanted: seen not in wanted,
    "less_than": lambda seen, wanted: bool(seen < wanted),
    "at_most": lambda seen, wanted: bool(seen <= wanted),
    "at_least": lambda seen, wanted: bool(seen >= wanted),
    "greater_than": lambda seen, wanted: bool(seen > wanted),
    "between": lambda seen, wanted: bool(wanted[0] <= seen <= wanted[1]),
    "starts_with": lambda seen, wanted: str(seen).startswith(wanted),
    "matches": lambda seen, wanted: re.fullmatch(wanted, seen, re.DOTALL) is not None,
}

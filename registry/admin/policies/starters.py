"""Example policies: an officer picks one, changes it in the form and saves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atp.judging.policy import BASELINE

__all__ = ["STARTERS", "Starter"]


@dataclass(frozen=True, slots=True)
class Starter:
    """An example policy with its title and its purpose."""

    title: str
    purpose: str
    document: Mapping[str, Any]


def _condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


def _policy(name: str, *rules: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "mode": "monitor", "rules": list(rules)}


def _baseline() -> Mapping[str, Any]:
    document = next(policy for policy in BASELINE if policy["mode"] == "enforce")
    return {**document, "name": f"{document['name']} (copy)", "mode": "monitor"}


STARTERS: dict[str, Starter] = {
    "empty": Starter("Empty", "One blank rule.", _policy("")),
    "baseline": Starter(
        "The baseline", "Who may reach which data, by level and score.", _baseline()
    ),
    "night": Starter(
        "Quiet hours",
        "No confidential or restricted data outside working hours.",
        _policy(
            "Quiet hours",
            {
                "name": "No confidential data after hours",
                "action": "deny",
                "severity": "medium",
                "conditions": [
                    _condition("data.sensitivity", "at_least", "confidential"),
                    _condition("time.hour:Europe/Berlin", "between", [18, 6]),
                ],
            },
            {
                "name": "No confidential data at the weekend",
                "action": "deny",
                "severity": "medium",
                "conditions": [
                    _condition("data.sensitivity", "at_least", "confidential"),
                    _condition("time.weekday:Europe/Berlin", "in", ["saturday", "sunday"]),
                ],
            },
        ),
    ),
    "flood": Starter(
        "Slow down floods",
        "A limit for all senders, a lower one for senders that are often denied.",
        _policy(
            "Slow down floods",
            {
                "name": "At most 600 envelopes a minute",
                "action": "throttle",
                "always": True,
                "throttle": {"limit": 600, "per_seconds": 60},
            },
            {
                "name": "Senders that are often denied: 10 envelopes a minute",
                "action": "throttle",
                "conditions": [_condition("context.denials_per_hour", "at_least", 20)],
                "throttle": {"limit": 10, "per_seconds": 60},
            },
        ),
    ),
    "amount": Starter(
        "A limit on a payload value",
        "Amounts above a limit only from certified agents.",
        _policy(
            "Large amounts",
            {
                "name": "Amounts above 10000 need a certified sender",
                "action": "deny",
                "severity": "high",
                "conditions": [
                    _condition("payload:/data/amount", "exists", True),
                    _condition("payload:/data/amount", "greater_than", 10000),
                    _condition("sender.level", "less_than", "certified"),
                ],
            },
        ),
    ),
    "organisation": Starter(
        "Stay inside an organisation",
        "Internal data does not leave one organisation.",
        _policy(
            "Internal data stays inside",
            {
                "name": "Internal data of Example Ltd goes to its own agents only",
                "action": "deny",
                "severity": "medium",
                "conditions": [
                    _condition("sender.organisation", "equals", "Example Ltd"),
                    _condition("recipient.organisation", "not_equals", "Example Ltd"),
                    _condition("data.sensitivity", "at_least", "internal"),
                ],
            },
        ),
    ),
}

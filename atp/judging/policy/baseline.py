"""The policies that a hub ships with, as documents like any other.

See docs/design/trust.md#shipped-baseline.

What each level may send, at which score:

| level | public | internal | confidential | restricted |
|---|---|---|---|---|
| certified | score 1 | yes | score 70 | score 85, and every sender in the chain is certified |
| verified | score 1 | yes | score 70 | no |
| unverified | score 1 | no | no | no |
| sandboxed | score 1, to sandboxed agents and sandbox hosts | no | no | no |

A score of 0 means suspended, revoked or not attested. So score 1 is the least for public data. A
score that is too low for the data is refused because no rule allows it. That is not a violation, so
it does not lower the score further. Sending data above one's level is a violation. Broadcasts carry
public and internal data only. Each threshold is in one rule, so it is edited in one place.
Responses are judged like any other message.

The second policy is in monitor mode: it decides nothing, and records which recipients get sensitive
data, until officers enforce it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BASELINE"]

SANDBOX_HOST_TAG = "sandbox-host"
ADDRESSED = ["request", "response", "notification"]  # the types with one recipient
CONFIDENTIAL_SCORE = 70
RESTRICTED_SCORE = 85
USABLE_SCORE = 1


def _condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


def _rule(action: str, name: str, *conditions: dict[str, Any], severity: str) -> dict[str, Any]:
    return {
        "name": name,
        "action": action,
        "severity": severity,
        "priority": 100,
        "always": False,
        "conditions": list(conditions),
    }


def _deny(name: str, *conditions: dict[str, Any], severity: str = "medium") -> dict[str, Any]:
    return _rule("deny", name, *conditions, severity=severity)


def _allow(name: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    return _rule("allow", name, *conditions, severity="low")


_SANDBOXED = _condition("sender.level", "equals", "sandboxed")
_VERIFIED = _condition("sender.level", "at_least", "verified")
_TO_ONE = _condition("message.type", "in", ADDRESSED)
_PUBLIC = _condition("data.sensitivity", "equals", "public")
_INTERNAL = _condition("data.sensitivity", "equals", "internal")
_CONFIDENTIAL = _condition("data.sensitivity", "equals", "confidential")
_RESTRICTED = _condition("data.sensitivity", "equals", "restricted")
_USABLE = _condition("sender.score", "at_least", USABLE_SCORE)

_RULES = (
    _deny(
        "An envelope older than its own lifespan is refused",
        _condition("message.lifespan_exceeded", "exists", True),
        _condition("message.lifespan_exceeded", "equals", True),
        severity="low",
    ),
    _deny(
        "Restricted data needs a certified sender",
        _RESTRICTED,
        _condition("sender.level", "less_than", "certified"),
    ),
    _deny(
        "Restricted data needs a chain of certified agents",
        _RESTRICTED,
        _condition("chain.lowest_level", "less_than", "certified"),
    ),
    _deny(
        "Unverified and sandboxed agents handle public data only",
        _condition("sender.level", "at_most", "unverified"),
        _condition("data.sensitivity", "greater_than", "public"),
    ),
    _deny(
        "Confidential and restricted data is not broadcast",
        _condition("message.type", "equals", "broadcast"),
        _condition("data.sensitivity", "at_least", "confidential"),
    ),
    _deny(
        "Sandboxed agents do not broadcast",
        _SANDBOXED,
        _condition("message.type", "equals", "broadcast"),
    ),
    _deny(
        "Sandboxed agents talk only to sandboxed agents and sandbox hosts",
        _SANDBOXED,
        _TO_ONE,
        _condition("recipient.level", "not_equals", "sandboxed"),
        _condition("recipient.tags", "not_in", [SANDBOX_HOST_TAG]),
    ),
    _allow(
        "Certified agents may reach restricted data from score 85",
        _condition("sender.level", "equals", "certified"),
        _RESTRICTED,
        _condition("sender.score", "at_least", RESTRICTED_SCORE),
    ),
    _allow(
        "Verified and certified agents may reach confidential data from score 70",
        _VERIFIED,
        _CONFIDENTIAL,
        _condition("sender.score", "at_least", CONFIDENTIAL_SCORE),
    ),
    _allow("Verified and certified agents may reach internal data", _VERIFIED, _INTERNAL),
    _allow(
        "Unverified agents and above may exchange public data",
        _condition("sender.level", "at_least", "unverified"),
        _PUBLIC,
        _USABLE,
    ),
    _allow(
        "Sandboxed agents may send public data to sandboxed agents",
        _SANDBOXED,
        _TO_ONE,
        _condition("recipient.level", "equals", "sandboxed"),
        _PUBLIC,
        _USABLE,
    ),
    _allow(
        "Sandboxed agents may send public data to sandbox hosts",
        _SANDBOXED,
        _TO_ONE,
        _condition("recipient.tags", "contains", SANDBOX_HOST_TAG),
        _PUBLIC,
        _USABLE,
    ),
)

_WATCHED_RULES = (
    _deny(
        "Restricted data goes to certified recipients",
        _RESTRICTED,
        _TO_ONE,
        _condition("recipient.level", "less_than", "certified"),
    ),
    _deny(
        "Internal and confidential data goes to verified recipients",
        _condition("data.sensitivity", "between", ["internal", "confidential"]),
        _TO_ONE,
        _condition("recipient.level", "less_than", "verified"),
    ),
    _deny(
        "Confidential data needs a chain of verified agents",
        _CONFIDENTIAL,
        _condition("chain.lowest_level", "less_than", "verified"),
    ),
)

BASELINE: tuple[Mapping[str, Any], ...] = (
    {
        "name": "Baseline",
        "description": "Who may reach which data, by level and score.",
        "mode": "enforce",
        "mandatory": False,
        "priority": 100,
        "rules": list(_RULES),
    },
    {
        "name": "Baseline: who receives sensitive data",
        "description": "Watches recipients and chains; enforce it once its record looks right.",
        "mode": "monitor",
        "mandatory": False,
        "priority": 200,
        "rules": list(_WATCHED_RULES),
    },
)

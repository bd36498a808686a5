"""Strict reading of policy documents: the result is rules, or an error that names the place.

A document is `{"name", "description"?, "mode"?: "enforce"|"monitor", "mandatory"?, "priority"?,
"rules"}`; a rule is `{"name", "description"?, "action", "severity"?, "priority"?, "always"?,
"conditions", "throttle"?: {"limit", "per_seconds"}, "officers"?}`; a condition is
`{"field", "operator", "value"?}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atp.errors import MalformedDocument, excerpt
from atp.judging.policy.conditions import Check, compile_check
from atp.judging.policy.fields import ACTIONS
from atp.judging.policy.readers import FieldKey, parse_field
from atp.wire.json_values import is_whole
from atp.wire.member_paths import below
from atp.wire.words import SEVERITIES

__all__ = ["ParsedCondition", "ParsedPolicy", "ParsedRule", "parse_condition", "parse_policies"]

NAME_MAX_CHARS = 160
DESCRIPTION_MAX_CHARS = 2_000
PRIORITY_DEFAULT = 100
PRIORITY_MAX = 32_767  # the largest small integer of every supported database
RULES_MAX = 1_000  # in one set; ten times the load that the hub is designed for
CONDITIONS_MAX = 50
THROTTLE_MAX = 1_000_000
THROTTLE_MAX_SECONDS = 86_400  # counters are kept for a day
OFFICERS_DEFAULT = {"quarantine": 1, "escalate": 2}
OFFICERS_MAX = 9

_POLICY_MEMBERS = frozenset({"name", "description", "mode", "mandatory", "priority", "rules"})
_RULE_MEMBERS = frozenset(
    {
        "name",
        "description",
        "action",
        "severity",
        "priority",
        "always",
        "conditions",
        "throttle",
        "officers",
    }
)
_CONDITION_MEMBERS = frozenset({"field", "operator", "value"})


@dataclass(frozen=True, slots=True)
class ParsedCondition:
    """A field, an operator and a value, with `check`, which tells whether the condition holds."""

    field: FieldKey
    operator: str
    value: Any
    check: Check


@dataclass(frozen=True, slots=True)
class ParsedRule:
    """A rule. `throttle` is (limit, seconds); `officers` must agree to release a held message."""

    policy: str
    name: str
    action: str
    severity: str
    priority: int
    enforced: bool
    mandatory: bool
    conditions: tuple[ParsedCondition, ...]
    throttle: tuple[int, int] | None
    officers: int

    @property
    def key(self) -> str:
        """The name of the rule in counters and waivers; unique in a set."""
        return f"{self.policy}/{self.name}"


@dataclass(frozen=True, slots=True)
class ParsedPolicy:
    """A named list of rules, either enforced or only monitored."""

    name: str
    enforced: bool
    mandatory: bool
    priority: int
    rules: tuple[ParsedRule, ...]


def parse_policies(documents: Sequence[Mapping[str, Any]]) -> tuple[ParsedPolicy, ...]:
    """Read policy documents.

    Raises `MalformedDocument`, which names policy, rule and condition, and the correction. Its
    `field` is the path within the wrong policy, such as `rules.0.conditions.1.operator`.
    """
    policies = tuple(_policy(document) for document in documents)
    names = [(policy.name, "name") for policy in policies]
    _refuse_repeats(names, "two policies are called", "policies")
    keys = [
        (rule.key, f"rules.{number}.name")
        for policy in policies
        for number, rule in enumerate(policy.rules)
    ]
    _refuse_repeats(keys, "two rules are called", "rules")
    if len(keys) > RULES_MAX:
        raise MalformedDocument(
            f"there are {len(keys)} rules; merge some, {RULES_MAX} is the limit"
        )
    return policies


def parse_condition(field: object, operator: Any, value: object) -> ParsedCondition:
    """Read one condition of a rule. Raises `MalformedDocument`; the caller adds policy and rule.

    The error's `field` is the wrong member of the condition: `field`, `operator` or `value`.
    """
    with below("field"):
        key = parse_field(field)
    return ParsedCondition(key, operator, value, compile_check(key.field, operator, value))


def _refuse_repeats(names: Sequence[tuple[str, str]], problem: str, what: str) -> None:
    """Raise `MalformedDocument` for a repeated name; each name has its path."""
    seen: set[str] = set()
    for name, path in names:
        if name in seen:
            raise MalformedDocument(
                f"{problem} {excerpt(name)}; give all {what} different names", field=path
            )
        seen.add(name)


def _policy(document: object) -> ParsedPolicy:
    members = _members(document, _POLICY_MEMBERS, ("name", "rules"), "a policy")
    name = _text(members, "name", "a policy", NAME_MAX_CHARS)
    where = f"policy {excerpt(name)}"
    _text(members, "description", where, DESCRIPTION_MAX_CHARS, default="")
    mode = _choice(members, "mode", ("enforce", "monitor"), where, default="enforce")
    mandatory = _flag(members, "mandatory", where)
    if mandatory and mode != "enforce":
        raise MalformedDocument(f"{where} is mandatory, so its mode must be enforce", field="mode")
    draft = ParsedPolicy(name, mode == "enforce", mandatory, _priority(members, where), ())
    documents = enumerate(_array(members, "rules", where, RULES_MAX))
    rules = tuple(_rule_at(number, document, draft) for number, document in documents)
    return ParsedPolicy(draft.name, draft.enforced, draft.mandatory, draft.priority, rules)


def _rule_at(number: int, document: object, policy: ParsedPolicy) -> ParsedRule:
    with below(f"rules.{number}"):
        return _rule(document, policy)


def _rule(document: object, policy: ParsedPolicy) -> ParsedRule:
    outer = f"policy {excerpt(policy.name)}, a rule"
    members = _members(document, _RULE_MEMBERS, ("name", "action"), outer)
    name = _text(members, "name", outer, NAME_MAX_CHARS)
    where = f"policy {excerpt(policy.name)}, rule {excerpt(name)}"
    _text(members, "description", where, DESCRIPTION_MAX_CHARS, default="")
    action = _choice(members, "action", tuple(ACTIONS), where)
    return ParsedRule(
        policy=policy.name,
        name=name,
        action=action,
        severity=_choice(members, "severity", SEVERITIES, where, default="low"),
        priority=_priority(members, where),
        enforced=policy.enforced,
        mandatory=policy.mandatory,
        conditions=_conditions(members, where),
        throttle=_throttle(members, action, where),
        officers=_officers(members, action, where),
    )


def _conditions(members: Mapping[str, Any], where: str) -> tuple[ParsedCondition, ...]:
    always = _flag(members, "always", where)
    documents = _array(members, "conditions", where, CONDITIONS_MAX)
    if always and documents:
        raise MalformedDocument(
            f"{where} says always and has conditions; remove one or the other", field="always"
        )
    if not always and not documents:
        raise MalformedDocument(
            f"{where} has no conditions; add one, or say always if it is meant for every message",
            field="conditions",
        )
    return tuple(
        _condition_at(number, document, f"{where}, condition {number + 1}")
        for number, document in enumerate(documents)
    )


def _condition_at(number: int, document: object, where: str) -> ParsedCondition:
    with below(f"conditions.{number}"):
        return _condition(document, where)


def _condition(document: object, where: str) -> ParsedCondition:
    members = _members(document, _CONDITION_MEMBERS, ("field", "operator"), where)
    try:
        return parse_condition(members["field"], members["operator"], members.get("value"))
    except MalformedDocument as exc:
        raise MalformedDocument(f"{where}: {exc.detail}", field=exc.field) from exc


def _throttle(members: Mapping[str, Any], action: str, where: str) -> tuple[int, int] | None:
    document = members.get("throttle")
    if action != "throttle":
        if document is not None:
            raise MalformedDocument(
                f"{where}: only a rule with action throttle has a limit", field="throttle"
            )
        return None
    names = ("limit", "per_seconds")
    with below("throttle"):
        limits = _members(document, frozenset(names), names, f"{where}, throttle")
        return (
            _whole(limits, "limit", where, 1, THROTTLE_MAX),
            _whole(limits, "per_seconds", where, 1, THROTTLE_MAX_SECONDS),
        )


def _officers(members: Mapping[str, Any], action: str, where: str) -> int:
    default = OFFICERS_DEFAULT.get(action, 0)
    if default == 0 and members.get("officers") is not None:
        raise MalformedDocument(
            f"{where}: only quarantine and escalate wait for officers", field="officers"
        )
    return _whole(members, "officers", where, default, OFFICERS_MAX, default=default)


def _members(
    document: object, known: frozenset[str], required: Sequence[str], where: str
) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise MalformedDocument(f"{where} must be an object, not {excerpt(document)}")
    for name in document:
        if name not in known:
            names = ", ".join(sorted(known))
            raise MalformedDocument(f"{where}: unknown member {excerpt(name)}; known are: {names}")
    for name in required:
        if name not in document:
            raise MalformedDocument(f"{where}: the member {name} is missing", field=name)
    return document


def _text(
    members: Mapping[str, Any], name: str, where: str, longest: int, *, default: str | None = None
) -> str:
    text = members.get(name, default)
    if isinstance(text, str) and len(text) <= longest and (text.strip() or default is not None):
        return text
    raise MalformedDocument(
        f"{where}: {name} must be a text of 1 to {longest} characters", field=name
    )


def _choice(
    members: Mapping[str, Any],
    name: str,
    choices: Sequence[str],
    where: str,
    *,
    default: str | None = None,
) -> str:
    choice = members.get(name, default)
    if isinstance(choice, str) and choice in choices:
        return choice
    raise MalformedDocument(
        f"{where}: {name} can't be {excerpt(choice)}; use one of: {', '.join(choices)}", field=name
    )


def _flag(members: Mapping[str, Any], name: str, where: str) -> bool:
    flag = members.get(name, False)
    if isinstance(flag, bool):
        return flag
    raise MalformedDocument(
        f"{where}: {name} must be true or false, not {excerpt(flag)}", field=name
    )


def _priority(members: Mapping[str, Any], where: str) -> int:
    return _whole(members, "priority", where, 0, PRIORITY_MAX, default=PRIORITY_DEFAULT)


def _whole(
    members: Mapping[str, Any],
    name: str,
    where: str,
    least: int,
    most: int,
    *,
    default: int | None = None,
) -> int:
    number = members.get(name, default)
    if is_whole(number, least=least, most=most):
        return number
    raise MalformedDocument(
        f"{where}: {name} must be a whole number from {least} to {most}", field=name
    )


def _array(
    members: Mapping[str, Any], name: str, where: str, longest: int
) -> Sequence[Mapping[str, Any]]:
    items = members.get(name, ())
    if isinstance(items, list | tuple) and len(items) <= longest:
        return items
    raise MalformedDocument(f"{where}: {name} must be a list of at most {longest}", field=name)

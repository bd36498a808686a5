"""Policies: compiled once, evaluated often. Facts go in; a decision with its reason comes out.

Example::

    policy_set = compile_policies(BASELINE)
    decision = evaluate(policy_set, context, payload=payload, throttled=over_limit)
    decision.action, decision.rule, decision.to_record()

Why it is fast: rules are bits of one integer. For each field, the rules that a value does not rule
out are computed once and cached. So judging a message costs one look-up and one AND for each field,
however many rules there are. `explain_rules` checks condition by condition instead; a property test
compares the two. See docs/design/trust.md#policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atp.errors import MalformedDocument, MalformedError
from atp.judging.policy.baseline import BASELINE
from atp.judging.policy.columns import build_columns, read, recordable
from atp.judging.policy.document import ParsedPolicy, ParsedRule, parse_condition, parse_policies
from atp.judging.policy.fields import (
    ACTIONS,
    FIELDS,
    OPERATORS,
    Action,
    Argument,
    Field,
    FieldKind,
    Operand,
    Operator,
    operators_for,
)
from atp.judging.policy.readers import (
    RE2_VERSION,
    TIME_ZONE_DATA_VERSION,
    FieldKey,
    hash_payload_value,
    parse_field,
    split_field,
)
from atp.judging.policy.recorded import RecordedPayload, RecordedValue
from atp.judging.policy.set import EVALUATOR_VERSION, Decision, Match, PolicySet
from atp.types import DataSensitivity
from atp.wire.canonical import digest

__all__ = [  # noqa: RUF022  # as sorted() has it
    "ACTIONS",
    "Action",
    "Argument",
    "BASELINE",
    "ConditionVerdict",
    "Decision",
    "EVALUATOR_VERSION",
    "FIELDS",
    "Field",
    "FieldKind",
    "Match",
    "OPERATORS",
    "Operand",
    "Operator",
    "PolicySet",
    "RE2_VERSION",
    "RecordedPayload",
    "RecordedValue",
    "RuleVerdict",
    "TIME_ZONE_DATA_VERSION",
    "compile_policies",
    "effective_sensitivity",
    "evaluate",
    "explain_rules",
    "hash_payload_value",
    "operators_for",
    "parse_condition",
    "parse_field",
    "split_field",
]

Throttled = Callable[[str, int, int], bool]
"""A function of (rule key, limit, seconds): whether the rule has reached its limit."""


@dataclass(frozen=True, slots=True)
class ConditionVerdict:
    """A condition with its result; `result` is `None` if it is unknown.

    `seen` is the value it was checked against. It is `None` if there was no value, and for payload
    values, which are never shown.
    """

    field: str
    operator: str
    value: Any
    seen: Any
    result: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """A rule with its conditions and whether it matched, to explain a decision to officers."""

    policy: str
    rule: str
    action: str
    severity: str
    enforced: bool
    mandatory: bool
    matches: bool
    conditions: tuple[ConditionVerdict, ...]


def compile_policies(documents: Sequence[Mapping[str, Any]]) -> PolicySet:
    """Compile policy documents. A set without documents denies every message.

    Raises `MalformedDocument`, which names policy, rule and condition, and the correction.
    """
    rules = _in_order(parse_policies(documents))
    columns = build_columns(rules)
    return PolicySet(
        hash=_hash(documents),
        uses=frozenset(key.text for key in columns.keys),
        rules=rules,
        limits=tuple(rule for rule in rules if rule.enforced and rule.throttle is not None),
        columns=columns,
        _actions={action: _bits(rule.action == action for rule in rules) for action in ACTIONS},
        _enforced=_bits(rule.enforced for rule in rules),
    )


def evaluate(
    policy_set: PolicySet,
    context: Mapping[str, Any],
    *,
    payload: object = None,
    throttled: Throttled,
    waived: str = "",
) -> Decision:
    """Decide about one message: `deny` beats `quarantine`, `escalate`, `throttle` and `allow`.

    They win in this order. `context` maps field names to values; unknown values are left out, and
    hour and weekday are derived from `time.now`, in seconds since 1970. `throttled` is called only
    if the message would pass: for each limit that applies, by priority, until one is reached.
    `waived` is the key of a rule from which officers released the message. A `deny` rule can't be
    waived.
    """
    matching, values = policy_set.columns.match(context, payload)
    if waived:
        matching = policy_set.waive(matching, waived)
    outcome = policy_set.outcome(matching)
    for rule in outcome.limits:
        assert rule.throttle is not None
        if throttled(rule.key, *rule.throttle):
            outcome = outcome.decided_by(rule, "throttle")
            break
    return Decision(policy_set, outcome, values, payload, waived)


def explain_rules(
    policy_set: PolicySet, context: Mapping[str, Any], payload: object = None
) -> list[RuleVerdict]:
    """Return every rule, by priority, with the result of every condition (`None`: unknown)."""
    seen = {key: read(key, context, payload) for key in policy_set.columns.keys}
    return [_explain(rule, seen) for rule in policy_set.rules]


def effective_sensitivity(*levels: str | None) -> str:
    """Return the highest of `levels`; `None` is ignored.

    If a word is not a sensitivity, or all are `None`, the result is `restricted`.
    """
    said = [level for level in levels if level is not None]
    try:
        return max(DataSensitivity(level) for level in said).value
    except ValueError:
        return DataSensitivity.RESTRICTED.value


def _hash(documents: Sequence[Mapping[str, Any]]) -> str:
    try:
        return digest(sorted(documents, key=lambda document: str(document["name"])))
    except MalformedError as exc:
        raise MalformedDocument(f"the policies have no canonical JSON form: {exc}") from exc


def _in_order(policies: Sequence[ParsedPolicy]) -> tuple[ParsedRule, ...]:
    """Sort the rules: mandatory policies first, then by priority, then by order in the document."""
    ordered = sorted(policies, key=lambda p: (not p.mandatory, p.priority, p.name))
    return tuple(
        rule for policy in ordered for rule in sorted(policy.rules, key=lambda r: r.priority)
    )


def _bits(wanted: Iterable[bool]) -> int:
    return sum(1 << bit for bit, is_wanted in enumerate(wanted) if is_wanted)


def _explain(rule: ParsedRule, seen: Mapping[FieldKey, object]) -> RuleVerdict:
    conditions = tuple(
        ConditionVerdict(
            field=condition.field.text,
            operator=condition.operator,
            value=condition.value,
            seen=None
            if condition.field.in_payload
            else recordable(condition.field, seen[condition.field], None),
            result=condition.check(seen[condition.field]),
            text=_sentence(condition.field.text, condition.operator, condition.value),
        )
        for condition in rule.conditions
    )
    results = [condition.result for condition in conditions]
    unknown_holds = ACTIONS[rule.action].matches_unknown
    return RuleVerdict(
        policy=rule.policy,
        rule=rule.name,
        action=rule.action,
        severity=rule.severity,
        enforced=rule.enforced,
        mandatory=rule.mandatory,
        matches=all(result or (result is None and unknown_holds) for result in results),
        conditions=conditions,
    )


def _sentence(name: str, operator: str, value: Any) -> str:
    if operator == "exists":
        return f"{name} is {'missing' if value is False else 'known'}"
    if isinstance(value, list | tuple):
        value = (" and " if operator == "between" else ", ").join(str(item) for item in value)
    return f"{name} {OPERATORS[operator].label} {value}"

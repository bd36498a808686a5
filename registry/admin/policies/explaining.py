"""Explains a recorded decision, rule by rule, with the policies that were in force then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from atp.errors import MalformedDocument
from atp.judging.policy import (
    FIELDS,
    Argument,
    ConditionVerdict,
    PolicySet,
    RuleVerdict,
    explain_rules,
    split_field,
)
from registry.admin.policies.wording import condition_in_words
from registry.policies.querysets import current_policy_set, policy_set_at

__all__ = ["ExplainedCondition", "ExplainedRule", "explain"]

_RESULTS = {True: "holds", False: "does not hold", None: "can't be told"}


@dataclass(frozen=True, slots=True)
class ExplainedCondition:
    """A condition in words, the value that it saw, and its result.

    The result is “holds”, “does not hold” or “can't be told”.
    """

    words: str
    seen: Any
    result: str


@dataclass(frozen=True, slots=True)
class ExplainedRule:
    """A rule with its conditions: whether it matched, and whether it is the reported one."""

    policy: str
    rule: str
    action: str
    enforced: bool
    matches: bool
    decided: bool
    conditions: tuple[ExplainedCondition, ...]


def explain(
    record: Mapping[str, Any], at: datetime, *, payload: object = None
) -> list[ExplainedRule]:
    """Return the rules of the decision `record` (`Decision.to_record()`), made at the time `at`.

    The reported rule comes first, then rules that matched, then the others. Payload values are
    recorded as salted hashes, so conditions on them need `payload`; without it their result is
    “can't be told”. Raises `MalformedDocument` if no stored policies have the recorded hash.
    """
    policy_set = _policy_set_of(str(record["policySet"]), at)
    verdicts = explain_rules(policy_set, record["consulted"], payload)
    rules = [_explained(verdict, record, has_payload=payload is not None) for verdict in verdicts]
    return sorted(rules, key=lambda rule: (not rule.decided, not rule.matches))


def _policy_set_of(digest: str, at: datetime) -> PolicySet:
    for policy_set in (current_policy_set(), policy_set_at(at)):
        if policy_set.hash == digest:
            return policy_set
    raise MalformedDocument("the policies in force at that time are not the recorded ones")


def _explained(
    verdict: RuleVerdict, record: Mapping[str, Any], *, has_payload: bool
) -> ExplainedRule:
    name = (verdict.policy, verdict.rule)
    matched = {(match["policy"], match["rule"]) for match in record["matched"]}
    watched = {(match["policy"], match["rule"]) for match in record["monitored"]}
    return ExplainedRule(
        policy=verdict.policy,
        rule=verdict.rule,
        action=verdict.action,
        enforced=verdict.enforced,
        matches=name in matched | watched,  # as recorded: the payload may be erased by now
        decided=name == (record["policy"], record["rule"]),
        conditions=tuple(
            _explained_condition(condition, has_payload=has_payload)
            for condition in verdict.conditions
        ),
    )


def _explained_condition(condition: ConditionVerdict, *, has_payload: bool) -> ExplainedCondition:
    document = {
        "field": condition.field,
        "operator": condition.operator,
        "value": condition.value,
    }
    name, _ = split_field(condition.field)
    known = has_payload or FIELDS[name].argument is not Argument.POINTER
    return ExplainedCondition(
        words=condition_in_words(document),
        seen=condition.seen,
        result=_RESULTS[condition.result if known else None],
    )

"""Every write to policies: a change is checked, stored as a new version and entered."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db.models import Max

from atp.errors import MalformedDocument, excerpt
from atp.judging.policy import compile_policies
from atp.wire.canonical import digest
from registry.change import ChangedMeanwhile, registry_change
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.policies.documents import normalise
from registry.policies.models import Condition, Policy, PolicyVersion, Rule
from registry.policies.querysets import versions
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

NAME_MAX_CHARS = 120  # length of the policy's column
CHANGED_MEANWHILE = (
    "Another officer saved this policy after you had opened it. Look at its history, open it again"
    " and repeat your change."
)
HELD_ACTIONS = {"quarantine", "escalate"}  # the hub can't hold envelopes for an officer yet


def save_policy(
    document: Mapping[str, Any],
    *,
    actor: Actor,
    reason: str,
    policy: Policy | None = None,
    expected_version: int | None = None,
) -> Policy:
    """Save `document` as the next version of `policy`, or as a new policy.

    `expected_version` is the number of the version that the officer edited. Raises
    `MalformedDocument`, naming policy, rule and condition, if the document is invalid, and
    `ChangedMeanwhile` if `expected_version` is no longer the newest.
    """
    document = normalise(document)
    reason = check_reason(reason)
    with registry_change(actor) as change:
        before = _read_before(policy, expected_version)
        _check(document, policy)
        row = _write_rows(document, policy)
        version = _write_version(row, document, actor=actor, reason=reason)
        change.enter(_entry(version, before, actor=actor))
    return row


def set_mode(policy: Policy, mode: str, *, actor: Actor, reason: str) -> None:
    """Save the policy with another mode: enforce, monitor or off. Raises as `save_policy` does."""
    newest = versions().newest().get(policy=policy)
    if newest.document["mode"] == mode:
        return
    document = {**newest.document, "mode": mode}
    save_policy(document, actor=actor, reason=reason, policy=policy, expected_version=newest.number)


def turn_off(policy: Policy, *, actor: Actor, reason: str) -> None:
    """Set the mode to off: the policy is no longer evaluated, and its versions stay.

    Policies are never deleted, so that old decisions can still be explained.
    """
    set_mode(policy, Policy.Mode.OFF, actor=actor, reason=reason)


def check_supported(document: Mapping[str, Any]) -> None:
    """Raise `MalformedDocument` if the document is valid but uses what this hub does not support.

    That is the actions `quarantine` and `escalate`, and descriptions of rules.
    """
    for number, rule in enumerate(document["rules"]):
        where = f"rule {excerpt(rule.get('name'))}"
        if rule.get("action") in HELD_ACTIONS:
            raise MalformedDocument(
                f"{where}: this hub does not hold envelopes; use deny",
                field=f"rules.{number}.action",
            )
        if "description" in rule:
            raise MalformedDocument(
                f"{where}: the hub does not store a description of a rule; put it in the rule's"
                " name",
                field=f"rules.{number}.description",
            )


def is_name_taken(name: str, policy: Policy | None = None) -> bool:
    """Return whether a policy other than `policy` has this name."""
    namesakes = Policy.objects.filter(name=name)
    return (namesakes.exclude(pk=policy.pk) if policy else namesakes).exists()


def _read_before(policy: Policy | None, expected_version: int | None) -> dict[str, Any] | None:
    if policy is None:
        return None
    newest = versions().newest().filter(policy=policy).first()
    if expected_version is not None and expected_version != (newest.number if newest else 0):
        raise ChangedMeanwhile(CHANGED_MEANWHILE)
    document: dict[str, Any] | None = newest.document if newest else None
    return document


def _check(document: Mapping[str, Any], policy: Policy | None) -> None:
    """Compile the set as it would be after the change: names must be unique in the whole set."""
    name = document.get("name")
    if isinstance(name, str) and len(name) > NAME_MAX_CHARS:
        raise MalformedDocument(
            f"the name must have 1 to {NAME_MAX_CHARS} characters", field="name"
        )
    if isinstance(name, str) and is_name_taken(name, policy):
        raise MalformedDocument(
            f"there is a policy '{name}' already; choose another name", field="name"
        )
    check_supported(document)
    others = versions().newest().in_force().exclude(policy=policy)
    compile_policies([*others.values_list("document", flat=True), _compilable(document)])


def _compilable(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document in a mode that is compiled.

    A policy that is off is checked too, so that turning it on later can't fail.
    """
    off = document.get("mode") == Policy.Mode.OFF
    return {**document, **({"mode": "enforce"} if off else {})}


def _write_rows(document: Mapping[str, Any], policy: Policy | None) -> Policy:
    row = policy or Policy()
    for name in ("name", "description", "mode", "mandatory", "priority"):
        setattr(row, name, document[name])
    row.save()
    row.rules.all().delete()
    rules = [_rule_row(row, rule) for rule in document["rules"]]
    for rule_row in rules:  # one by one, because the conditions need their ids on any database
        rule_row.save()
    Condition.objects.bulk_create(
        Condition(
            rule=rule_row,
            field=condition["field"],
            operator=condition["operator"],
            value=condition.get("value"),
        )
        for rule_row, rule in zip(rules, document["rules"], strict=True)
        for condition in rule["conditions"]
    )
    return row


def _rule_row(policy: Policy, rule: Mapping[str, Any]) -> Rule:
    throttle = rule.get("throttle") or {}
    return Rule(
        policy=policy,
        name=rule["name"],
        action=rule["action"],
        severity=rule["severity"],
        priority=rule["priority"],
        always=rule["always"],
        throttle_limit=throttle.get("limit"),
        throttle_seconds=throttle.get("per_seconds"),
    )


def _write_version(
    policy: Policy, document: dict[str, Any], *, actor: Actor, reason: str
) -> PolicyVersion:
    last = policy.versions.aggregate(last=Max("number"))["last"] or 0
    return PolicyVersion.objects.create(
        policy=policy,
        number=last + 1,
        document=document,
        digest=digest(document),
        reason=reason,
        created_by_id=actor.user_id,
    )


def _entry(version: PolicyVersion, before: dict[str, Any] | None, *, actor: Actor) -> EntryDraft:
    return EntryDraft(
        kind=Kind.POLICY_CREATED if before is None else Kind.POLICY_CHANGED,
        actor=actor.name,
        subject=version.policy.name,
        policy=version.policy.name,
        shared={
            "version": version.number,
            "digest": version.digest,
            "before": before,
            "after": version.document,
            "reason": version.reason,
        },
    )

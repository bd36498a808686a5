"""Which policies the hub evaluates, and how a decision on record is explained afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from atp.errors import MalformedDocument
from atp.judging.policy import Decision, evaluate
from registry.admin.policies.explaining import explain
from registry.hub.models import Hub
from registry.officers.actor import Actor
from registry.policies.actions import save_policy, set_mode, turn_off
from registry.policies.models import Policy
from registry.policies.querysets import current_policy_set, score_thresholds
from registry.trail.models import Entry

pytestmark = pytest.mark.usefixtures("database")
OFFICER = Actor(name="officer:0123456789ab")
CONTEXT = {
    "sender.id": "alice",
    "sender.level": "verified",
    "sender.score": 80,
    "message.type": "request",
    "data.sensitivity": "public",
    "chain.lowest_level": "verified",
    "recipient.level": "verified",
    "recipient.tags": (),
}


def decide(sender: str) -> Decision:
    context = {**CONTEXT, "sender.id": sender}
    return evaluate(current_policy_set(), context, throttled=lambda rule, limit, seconds: False)


def document_against(sender: str, **changes: Any) -> dict[str, Any]:
    conditions = [
        {"field": "sender.id", "operator": "equals", "value": sender},
        {"field": "payload:/data/amount", "operator": "exists", "value": True},
    ]
    rule = {
        "name": f"no {sender}",
        "action": "deny",
        "severity": "high",
        "conditions": conditions[:1] if not changes.pop("payload", False) else conditions,
    }
    return {"name": f"Against {sender}", "mode": "enforce", "rules": [rule], **changes}


@pytest.fixture
def sender() -> str:
    return f"mallory-{secrets.token_hex(6)}"


@pytest.fixture
def policy(sender: str) -> Iterator[Policy]:
    policy = save_policy(document_against(sender), actor=OFFICER, reason="made for a test")
    yield policy
    turn_off(policy, actor=OFFICER, reason="end of test")


def test_it_ships_a_baseline_that_is_in_force() -> None:
    assert decide("alice").action == "allow"
    assert {70, 85} <= score_thresholds()


def test_it_decides_by_a_new_policy_at_once(policy: Policy, sender: str) -> None:
    decision = decide(sender)
    assert (decision.action, decision.policy, decision.rule) == (
        "deny",
        policy.name,
        f"no {sender}",
    )
    assert decide("alice").action == "allow"


def test_it_moves_the_epoch_with_every_change(policy: Policy) -> None:
    before = Hub.objects.get().epoch
    set_mode(policy, "monitor", actor=OFFICER, reason="watch it")
    assert Hub.objects.get().epoch > before
    epoch = Hub.objects.get().epoch
    set_mode(policy, "monitor", actor=OFFICER, reason="it is so already")
    assert Hub.objects.get().epoch == epoch


def test_it_only_watches_what_is_monitored_and_forgets_what_is_off(
    policy: Policy, sender: str
) -> None:
    set_mode(policy, "monitor", actor=OFFICER, reason="watch it")
    decision = decide(sender)
    assert decision.action == "allow"
    assert _watched(decision).count(policy.name) == 1
    turn_off(policy, actor=OFFICER, reason="enough")
    assert policy.name not in _watched(decide(sender))


def test_it_enters_before_after_and_reason_in_the_trail(policy: Policy) -> None:
    set_mode(policy, "monitor", actor=OFFICER, reason="watch it")
    entry = Entry.objects.filter(kind="policy.changed", subject=policy.name).latest("position")
    body = entry.body.read()
    assert (body["before"]["mode"], body["after"]["mode"]) == ("enforce", "monitor")
    assert (body["reason"], body["version"], entry.actor) == ("watch it", 2, OFFICER.name)


def test_it_compiles_once_for_as_long_as_nothing_changes(policy: Policy) -> None:
    first = current_policy_set()
    with CaptureQueriesContext(connection) as queries:
        assert current_policy_set() is first
    assert len(queries) == 1
    set_mode(policy, "monitor", actor=OFFICER, reason="watch it")
    assert current_policy_set() is not first


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Baseline"},
        {"name": ""},
        {"name": "n" * 121},
        {"mode": "sometimes"},
        {"mandatory": True, "mode": "monitor"},
        {"rules": "all"},
        {"rules": [{"name": "R", "action": "deny"}]},
        {"rules": [{"name": "R", "action": "quarantine", "always": True}]},
        {"rules": [{"name": "R", "action": "deny", "always": True, "description": "why"}]},
        {"unknown": 1},
    ],
)
def test_rejects_a_policy_that_is_not_sound_and_changes_nothing(
    sender: str, change: dict[str, Any]
) -> None:
    count, epoch = Policy.objects.count(), Hub.objects.get().epoch
    with pytest.raises(MalformedDocument):
        save_policy({**document_against(sender), **change}, actor=OFFICER, reason="try")
    assert (Policy.objects.count(), Hub.objects.get().epoch) == (count, epoch)


def test_rejects_a_change_without_a_reason(sender: str) -> None:
    with pytest.raises(MalformedDocument):
        save_policy(document_against(sender), actor=OFFICER, reason=" ")


def test_it_explains_a_decision_by_the_policies_of_its_time(policy: Policy, sender: str) -> None:
    record, at = decide(sender).to_record(), datetime.now(UTC)
    turn_off(policy, actor=OFFICER, reason="enough")
    first, *others = explain(record, at)
    assert (first.policy, first.decided, first.matches) == (policy.name, True, True)
    [condition] = first.conditions
    assert (condition.words, condition.seen, condition.result) == (
        f"sender id is {sender}",
        sender,
        "holds",
    )
    assert not any(rule.decided for rule in others)
    with pytest.raises(MalformedDocument):
        explain({**record, "policySet": "another"}, at)


def test_it_tells_payload_conditions_only_while_the_payload_is_there(sender: str) -> None:
    policy = save_policy(
        document_against(sender, payload=True), actor=OFFICER, reason="made for a test"
    )
    try:
        record, at = decide(sender).to_record(), datetime.now(UTC)
        payload = {"data": {"amount": 5}, "salt": "s" * 22}

        def told(**given: Any) -> str:
            [rule] = [r for r in explain(record, at, **given) if r.policy == policy.name]
            return rule.conditions[1].result

        assert (told(), told(payload=payload)) == ("can't be told", "holds")
    finally:
        turn_off(policy, actor=OFFICER, reason="end of test")


def _watched(decision: Decision) -> list[str]:
    """The policies in monitor mode that matched; other tests may have left some of theirs."""
    return [match.policy for match in decision.monitored]

"""The judgement is pure: it changes nothing, and the caller counts for throttle rules."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest

from atp.judging.facts import AgentFacts, AttestationFacts, Facts
from atp.judging.judgement import judge
from atp.judging.policy import compile_policies
from atp.judging.scoring import ScoreInputs
from atp.trust.envelope import VerifiedEnvelope, parse_envelope, verify_envelope
from tests.atp.envelopes import ALICE, HUB, NOW, document, signed

LIMIT = 3
CALM = document(required_capabilities=[], requires_trust=None, provenance=[])


def throttle(name: str, limit: int, **members: Any) -> dict[str, Any]:
    limits = {"limit": limit, "per_seconds": 60}
    return {"name": name, "action": "throttle", "always": True, "throttle": limits, **members}


def policies(*rules: dict[str, Any]) -> Any:
    allow = {"name": "yes", "action": "allow", "always": True}
    return compile_policies([{"name": "p", "rules": [*rules, allow]}])


def verified() -> VerifiedEnvelope:
    envelope = parse_envelope(signed(CALM), max_bytes=1_000_000)
    return verify_envelope(envelope, ALICE.public, hub_id=HUB, now=NOW)


def facts(*rules: dict[str, Any], **counts: int) -> Facts:
    issued, expires = int(NOW) - 1_000, int(NOW) + 1_000
    attestation = AttestationFacts(
        "j", "authority", "certified", frozenset(), ALICE.kid, issued, expires
    )
    return Facts(
        now=NOW,
        sender=AgentFacts("alice", "active", "org-1"),
        attestations=[attestation],
        inputs=ScoreInputs(level="certified", issued_at=issued, expires_at=expires),
        policy_set=policies(*rules),
        recipient=AgentFacts("bob", "active", "org-2"),
        counts={f"p/{name}": count for name, count in counts.items()},
    )


def state(given: Facts) -> dict[str, Any]:
    kept = {f.name: getattr(given, f.name) for f in fields(given)}
    del kept["policy_set"]  # it remembers outcomes; they do not depend on the order of the calls
    return copy.deepcopy(kept)


@pytest.mark.parametrize("count", [LIMIT - 1, LIMIT])
def test_it_says_the_same_twice_and_changes_nothing(count: int) -> None:
    given, envelope = facts(throttle("slow", LIMIT), slow=count), verified()
    before = state(given)
    first, second = judge(envelope, given), judge(envelope, given)
    assert first == second
    assert first.status == ("accepted" if count < LIMIT else "throttled")
    assert state(given) == before


def test_it_names_the_rules_that_count_the_envelope() -> None:
    rules = [throttle("first", 9, priority=1), throttle("second", LIMIT, priority=2)]
    last = throttle("last", 9, priority=3)
    passed = judge(verified(), facts(*rules, last)).decision
    assert passed is not None
    assert [rule.name for rule in passed.counted_by] == ["first", "second", "last"]
    stopped = judge(verified(), facts(*rules, last, second=LIMIT)).decision
    assert stopped is not None
    assert (stopped.action, stopped.rule) == ("throttle", "second")
    assert [rule.name for rule in stopped.counted_by] == ["first"]


def test_it_counts_nothing_that_is_denied() -> None:
    deny = {"name": "no", "action": "deny", "always": True, "severity": "low"}
    decision = judge(verified(), facts(throttle("slow", LIMIT), deny)).decision
    assert decision is not None
    assert decision.action == "deny"
    assert decision.counted_by == ()

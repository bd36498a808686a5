"""A broadcast to one hearer is judged as a message to it, and to many as to each of them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from atp.judging.facts import AgentFacts, AttestationFacts, Facts, RecipientFacts
from atp.judging.judgement import Verdict, judge
from atp.judging.policy import BASELINE, compile_policies
from atp.judging.scoring import ScoreInputs
from atp.trust.envelope import VerifiedEnvelope, parse_envelope, verify_envelope
from atp.types import DataSensitivity, IPolicyContext, MessageType, TrustLevel
from tests.atp.envelopes import ALICE, HUB, NOW, document, signed

ISSUED, EXPIRES = int(NOW) - 1_000, int(NOW) + 1_000
LEVELS = [level.value for level in TrustLevel]
RULES = [
    {"name": "all", "action": "allow", "always": True},
    {"name": "restricted", "action": "deny", "severity": "medium", "conditions": [
        {"field": "data.sensitivity", "operator": "equals", "value": "restricted"},
        {"field": "sender.level", "operator": "less_than", "value": "certified"}]},
    {"name": "low scores", "action": "deny", "severity": "low",
     "conditions": [{"field": "recipient.score", "operator": "less_than", "value": 45}]},
    {"name": "no friends of zoe", "action": "deny", "severity": "high",
     "conditions": [{"field": "recipient.tags", "operator": "contains", "value": "zoe"}]},
    {"name": "slowly", "action": "throttle", "throttle": {"limit": 1, "per_seconds": 60},
     "conditions": [{"field": "recipient.organisation", "operator": "equals", "value": "slow"}]},
]  # fmt: skip
POLICIES = compile_policies([{"name": "more", "mode": "enforce", "rules": RULES}])


def _sent(chance: random.Random, *, to_all: bool) -> VerifiedEnvelope:
    """Return envelopes with the same content: one to Bob, one as a broadcast."""
    content = document(
        message_type=MessageType.BROADCAST if to_all else MessageType.NOTIFICATION,
        target="*" if to_all else "bob",
        required_capabilities=chance.choice([[], [], ["a.b"]]),
        requires_trust=chance.choice([None, None, *TrustLevel]),
        policy_context=IPolicyContext(data_sensitivity=chance.choice([*DataSensitivity][:2])),
        provenance=[],
    )
    envelope = parse_envelope(signed(content), max_bytes=1_000_000)
    return verify_envelope(envelope, ALICE.public, hub_id=HUB, now=NOW)


def _somebody(chance: random.Random, name: str) -> RecipientFacts:
    level = chance.choice(LEVELS)
    capabilities = chance.choice([frozenset[str](), frozenset({"a.b"})])
    attestation = AttestationFacts("j", "authority", level, capabilities, "kid", ISSUED, EXPIRES)
    agent = AgentFacts(
        name,
        "active",
        chance.choice(["fast", "slow"]),
        tags=chance.choice([(), ("zoe",), ("sandbox-host",)]),
        sensitivity_floor=chance.choice(["public", "public", "internal", "restricted"]),
        minimum_level=chance.choice(["", "", "verified", "certified"]),
        minimum_score=chance.choice([0, 0, 60, 99]),
    )
    inputs = ScoreInputs(
        level=level, issued_at=ISSUED, expires_at=EXPIRES,
        attested_capabilities=tuple(capabilities), key_algorithm="EdDSA",
    )  # fmt: skip
    return RecipientFacts(agent, [attestation], inputs, full=chance.random() < 0.1)


def _facts(level: str, **about: Any) -> Facts:
    attestation = AttestationFacts("j", "authority", level, frozenset(), ALICE.kid, ISSUED, EXPIRES)
    return Facts(
        now=NOW,
        sender=AgentFacts("alice", "active", "fast"),
        attestations=[attestation],
        inputs=ScoreInputs(
            level=level, issued_at=ISSUED, expires_at=EXPIRES, key_algorithm="EdDSA"
        ),
        policy_set=POLICIES,
        **about,
    )


def _alone(one: RecipientFacts) -> dict[str, Any]:
    return {
        "recipient": one.agent,
        "recipient_attestations": one.attestations,
        "recipient_inputs": one.inputs,
        "recipient_full": one.full,
    }


def _said(verdict: Verdict) -> tuple[str, str, str]:
    """The sensitivity, if it was used: an earlier refusal does not include a hearer's floor."""
    return verdict.status, verdict.code, verdict.sensitivity if verdict.accepted else ""


def _chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # the same at each run


@pytest.mark.parametrize("seed", range(40))
def test_it_says_of_a_hearer_what_it_says_of_a_recipient(seed: int) -> None:
    chance = _chance(seed)
    level = chance.choice(LEVELS)
    everybody = [_somebody(chance, f"agent-{n}") for n in range(12)]
    state = chance.getstate()
    direct = _sent(chance, to_all=False)
    chance.setstate(state)
    to_all = _sent(chance, to_all=True)
    counts = {"more/slowly": chance.randrange(2)}
    apart = {}
    for one in everybody:
        bob = replace(one.agent, id="bob")
        facts = _facts(level, **_alone(replace(one, agent=bob)), counts=counts)
        apart[one.agent.id] = judge(direct, facts)
        heard = judge(to_all, _facts(level, audience=[one], counts=counts))
        assert _said(heard) == _said(apart[one.agent.id])

    together = judge(to_all, _facts(level, audience=everybody, counts=counts))
    fits = [name for name, verdict in apart.items() if verdict.accepted]
    assert list(together.hearers) == fits
    assert together.accepted == bool(fits)
    left_out: dict[str, int] = {}
    for verdict in apart.values():
        if not verdict.accepted:
            left_out[verdict.code] = left_out.get(verdict.code, 0) + 1
    assert together.left_out == left_out
    if not fits:
        assert together.code in left_out
    assert not together.violation


def test_it_accepts_for_nobody_where_nobody_is_there() -> None:
    facts = replace(_facts("certified"), policy_set=compile_policies(BASELINE))
    verdict = judge(_sent(_chance(1), to_all=True), facts)
    assert (verdict.status, verdict.hearers, verdict.left_out) == ("accepted", (), {})

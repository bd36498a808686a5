"""`ATPEnvelope` as the seed has it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atp import (
    ATPEnvelope,
    IAgentIdentity,
    IATPConfig,
    IAttestation,
    IPolicyContext,
    IProvenanceEntry,
    PrivateKey,
    TrustLevel,
    parse_envelope,
    verify_entries,
)
from atp.errors import KeyMissing, MalformedEnvelope, MalformedJson
from atp.types import DataSensitivity
from atp.wire.timestamps import parse_timestamp

NOW = parse_timestamp("2026-03-01T12:00:00Z")
STEP = {"type": "service", "id": "checker", "action": "checked"}


def clock() -> float:
    return NOW


def envelope(
    *, level: TrustLevel = TrustLevel.VERIFIED, ends: str = "2026-06-01T00:00:00Z"
) -> ATPEnvelope:
    attestation = IAttestation("authority", TrustLevel.VERIFIED, "2026-01-01T00:00:00Z", ends)
    identity = IAgentIdentity("alice", "public key", attestation, ["reading"])
    context = IPolicyContext(data_sensitivity=DataSensitivity.INTERNAL)
    return ATPEnvelope(IATPConfig(identity, level, context, {"text": "hello"}), clock=clock)


def test_it_survives_being_written_and_read() -> None:
    original = envelope()
    original.add_provenance(STEP)
    original.sign(PrivateKey.generate())
    restored = ATPEnvelope.from_serialized(original.serialize(), clock=clock)
    assert restored.serialize() == original.serialize()
    assert restored.payload == original.payload
    assert restored.agent_identity == original.agent_identity
    assert restored.verify_signature()
    assert ATPEnvelope.from_serialized(json.loads(original.serialize())).verify_signature()


def test_it_takes_the_signature_of_another_writer() -> None:
    """Members that this shell would write with defaults are left as they were signed."""
    key = PrivateKey.generate()
    original = envelope()
    original.sign(key)
    document = json.loads(original.serialize())
    del document["ATP"]["agentIdentity"]["capabilities"]
    del document["ATP"]["policyContext"]["allowedTools"]
    bare = ATPEnvelope.from_serialized(document, clock=clock)
    assert "allowedTools" not in bare.serialize()
    bare.sign(key)
    assert ATPEnvelope.from_serialized(bare.serialize()).verify_signature(key.public)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.payload.update(data="other"),
        lambda e: setattr(e, "trust_level", TrustLevel.CERTIFIED),
        lambda e: setattr(e, "message_id", "00000000-0000-4000-8000-000000000000"),
        lambda e: setattr(e, "policy_context", None),
        lambda e: e._entries.append(IProvenanceEntry("t", "i", e.timestamp, "a").to_wire()),
        lambda e: setattr(e, "agent_identity", IAgentIdentity("mallory")),
    ],
)
def test_it_notices_changes_after_signing(change: Any) -> None:
    key = PrivateKey.generate()
    signed = envelope()
    signed.sign(key)
    assert signed.verify_signature(key.public)
    change(signed)
    assert not signed.verify_signature(key.public)


def test_it_verifies_by_the_key_that_it_is_given() -> None:
    signed = envelope()
    signed.sign("a string")
    assert signed.verify_signature()
    assert signed.verify_signature("a string")
    assert not signed.verify_signature("another string")
    assert not signed.verify_signature(PrivateKey.generate().public)


def test_it_needs_a_key_to_sign() -> None:
    with pytest.raises(KeyMissing):
        envelope().sign()


def test_it_says_what_is_wrong() -> None:
    unsigned = envelope().validate()
    assert unsigned.valid
    assert [warning.split(":")[0] for warning in unsigned.warnings] == ["signature.missing"]
    boastful = envelope(level=TrustLevel.CERTIFIED)
    assert [error.split(":")[0] for error in boastful.validate().errors] == [
        "signature.missing",
        "trust.level",
    ]
    expired = envelope(ends="2026-02-01T00:00:00Z")
    expired.sign(PrivateKey.generate())
    assert [error.split(":")[0] for error in expired.validate().errors] == ["attestation.expired"]
    signed = envelope()
    signed.sign(PrivateKey.generate())
    assert signed.validate().valid
    assert not signed.validate().warnings
    signed.payload["data"] = "changed"
    assert [error.split(":")[0] for error in signed.validate().errors] == ["signature.digest"]
    signed.payload["targetAgent"] = "Not An Id"
    assert [e.split(":")[0] for e in signed.validate().errors] == ["malformed.envelope"]


def test_it_scores_by_what_is_known() -> None:
    unsigned, signed, forged = envelope(), envelope(), envelope()
    signed.sign(PrivateKey.generate())
    forged.sign(PrivateKey.generate())
    forged.payload["data"] = "changed"
    assert signed.get_trust_score() > unsigned.get_trust_score() == forged.get_trust_score()
    assert signed.meets_trust_threshold(signed.get_trust_score())
    assert not signed.meets_trust_threshold(signed.get_trust_score() + 1)
    expired = envelope(ends="2026-02-01T00:00:00Z")
    expired.sign(PrivateKey.generate())
    assert expired.get_trust_score() == 0


def test_it_covers_provenance_that_was_there_before_signing() -> None:
    signed = envelope()
    signed.add_provenance(STEP)
    signed.sign(PrivateKey.generate())
    assert signed.verify_signature()
    assert signed.provenance == [{**STEP, "timestamp": "2026-03-01T12:00:00.000Z"}]
    signed._entries.clear()
    assert not signed.verify_signature()


def test_it_adds_provenance_after_signing_as_tokens() -> None:
    key = PrivateKey.generate()
    signed = envelope()
    signed.add_provenance(STEP)
    signed.sign(key)
    signed.add_provenance({**STEP, "action": "checked again"})
    assert signed.verify_signature()
    assert [step.get("agent") for step in signed.provenance] == [None, "alice"]
    strict = parse_envelope(signed.serialize())
    added = verify_entries(
        strict.provenance,
        digest=strict.digest,
        find_key=lambda kid: ("alice", key.public),
        now=NOW,
    )
    assert [(entry.agent, entry.entry.action) for entry in added] == [("alice", "checked again")]


def test_rejects_provenance_that_nobody_signs() -> None:
    signed = envelope()
    signed.sign(PrivateKey.generate())
    restored = ATPEnvelope.from_serialized(signed.serialize())
    with pytest.raises(KeyMissing):
        restored.add_provenance(STEP)
    with pytest.raises(MalformedEnvelope):
        restored.add_provenance({"type": "service"})


def test_rejects_what_is_no_envelope() -> None:
    with pytest.raises(MalformedJson):
        ATPEnvelope.from_serialized("{")
    with pytest.raises(MalformedEnvelope):
        ATPEnvelope.from_serialized("{}")

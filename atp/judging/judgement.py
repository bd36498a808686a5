"""The ordered judgement of one envelope: facts in, a verdict with its reason out.

Pure, so that the hub, a simulation and an offline verifier come to the same answer
(docs/design/architecture.md#folders). What was claimed in the envelope is compared with the facts;
the facts win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from atp.errors import (
    ATPError,
    AttestationCapability,
    AttestationExpired,
    AttestationMissing,
    ClockExpired,
    FlowError,
    IdentityMismatch,
    IdentityNotActive,
    IdentityRevoked,
    IdentityUnknown,
    KeyRevoked,
    KeyUnknown,
    MalformedEnvelope,
    RecipientNoRequest,
    RecipientSelf,
    RecipientUnavailable,
    SignatureProvenance,
    TrustCauseInvalid,
    TrustLevelTooLow,
    from_code,
)
from atp.judging import policy as policies
from atp.judging import scoring
from atp.judging.blame import Blame, blame
from atp.judging.facts import (
    AgentFacts,
    AttestationFacts,
    Chain,
    Facts,
    KeyFacts,
    RecipientFacts,
)
from atp.judging.hearing import Hearing, hear
from atp.judging.policy.document import ParsedRule
from atp.judging.recipients import (
    chain_context,
    check_takes,
    demanded_level,
    is_below,
    recipient_context,
)
from atp.trust.envelope import Envelope, VerifiedEnvelope, verify_envelope
from atp.trust.keys import PublicKey
from atp.trust.provenance import verify_entries
from atp.types import BROADCAST_TARGET, MessageType, TrustLevel

__all__ = [
    "Verdict",
    "best_attestation",
    "judge",
    "verify",
    "violation_of",
]

DEEPEST_CHAIN = 32  # causes behind an envelope; docs/protocol.md#json bounds depth alike

# Denials that are the sender's doing, and how heavily they weigh (docs/design/trust.md#the-score).
# A denial that is the other side's fault is none.
VIOLATIONS = {
    "identity.mismatch": "high",
    "signature.invalid": "high",
    "signature.digest": "high",
    "signature.audience": "medium",
    "signature.provenance": "high",
    "replay.conflict": "medium",
    "trust.cause": "medium",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an envelope, and everything the record needs to show why.

    `violation` is the severity where a denial is the sender's own doing, `violated` the rule or
    code that it broke. Of a broadcast, `hearers` get it, `left_out` counts the others by code, and
    `decisions` are those that hearers get it by, the first of which is `decision`.
    """

    status: str
    code: str
    detail: str
    score: int = 0
    level: str = ""
    sensitivity: str = ""
    chain: Chain | None = None
    issuer: str = ""
    decision: policies.Decision | None = None
    inputs: scoring.ScoreInputs | None = None
    violation: str = ""
    violated: str = ""
    rule: str = ""
    retry_after: float | None = None  # seconds, where it is known when trying again can help
    hearers: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    decisions: tuple[policies.Decision, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"

    @property
    def counted_by(self) -> tuple[ParsedRule, ...]:
        """The throttle rules that count this envelope, each once."""
        counted = {rule.key: rule for one in self.decisions for rule in one.counted_by}
        return tuple(counted.values())

    @property
    def matched(self) -> tuple[policies.Match, ...]:
        """All enforced rules that matched, each once; of a broadcast, for anybody who hears it."""
        return tuple(dict.fromkeys(match for one in self.decisions for match in one.matched))


@dataclass(slots=True)
class _Findings:
    """What a judgement has found so far; a refusal half way keeps what was known by then."""

    level: str = ""
    issuer: str = ""
    sensitivity: str = ""
    total: int = 0
    inputs: scoring.ScoreInputs | None = None
    chain: Chain | None = None
    own_sensitivity: str = ""  # what the sender alone brought
    own_chain: Chain | None = None
    decision: policies.Decision | None = None
    hearing: Hearing | None = None
    blame: Blame | None = None  # `None`: the code tells (`VIOLATIONS`)


def verify(
    envelope: Envelope,
    key: KeyFacts | None,
    *,
    session_agent: str,
    hub_id: str,
    now: float,
    find_key: Callable[[str], KeyFacts | None],
) -> VerifiedEnvelope:
    """Check that the session's agent signed `envelope` with a key of its own that is in force.

    Entries added to its provenance must be by who they say, found by `find_key`. Raises
    `IdentityMismatch`, `KeyUnknown`, `KeyRevoked`, `SignatureProvenance`, or what
    `verify_envelope` raises.
    """
    if envelope.sender != session_agent:
        raise IdentityMismatch("agentIdentity.id is not the agent of this session")
    if key is None or key.agent != session_agent:
        raise KeyUnknown("no key of this agent has the thumbprint that the signature names")
    if key.status != "active":
        raise KeyRevoked(f"the signing key is {key.status}; sign with the agent's active key")
    verified = verify_envelope(envelope, key.public, hub_id=hub_id, now=now)
    if entries := envelope.provenance:
        signer = partial(_entry_signer, find_key)
        verify_entries(entries, digest=envelope.digest, find_key=signer, now=now)
    return verified


def judge(verified: VerifiedEnvelope, facts: Facts) -> Verdict:
    """Judge a verified envelope, in this order, the first refusal deciding:

    (1) the sender may speak, (2) somebody vouches for it, (3) its score, (4) the recipient can
    be reached and takes such mail, (5) a response answers a request made to its sender, (6) what
    was demanded of the other side holds, (7) the cause was received, (8) policy.

    Of a broadcast (4), (6) and (8) are asked for each hearer: whoever does not fit is left out,
    and it is refused only where nobody of those who are there may hear it.

    It is pure: it reads nothing but its arguments and changes nothing. The caller counts the
    envelope for the throttle rules in `verdict.counted_by`.
    """
    found = _Findings()
    try:
        _judge(verified, facts, found)
    except ATPError as problem:
        return _refusal(problem, found)
    if found.hearing is not None and not found.hearing.hearers:
        return _unheard(found.hearing, found)
    decision = found.decision
    assert decision is not None
    if decision.action == "allow":
        return _verdict("accepted", "", "", found)
    status = "throttled" if decision.action == "throttle" else "denied"
    return _verdict(status, decision.code, decision.detail, found)


def best_attestation(
    attestations: Sequence[AttestationFacts], *, kid: str, now: float, required: Sequence[str] = ()
) -> AttestationFacts:
    """The valid attestation of the highest level that covers everything `required`.

    Levels and capabilities of two attestations are never mixed. Raises `AttestationMissing`,
    `AttestationExpired`, `AttestationCapability`, or the fault that the registry found:
    absent, expired, revoked and unreadable are different answers.
    """
    ours = [a for a in attestations if a.jkt == kid]
    if not ours:
        raise AttestationMissing("no issuer has attested this agent's key")
    sound = [a for a in ours if not a.fault]
    if not sound:
        raise from_code(ours[0].fault, f"its attestation by {ours[0].issuer} does not hold")
    current = [a for a in sound if a.issued_at <= now < a.expires_at]
    if not current:
        raise AttestationExpired("its attestation is not valid at this time")
    covering = [a for a in current if a.capabilities.issuperset(required)]
    if not covering:
        raise AttestationCapability("no one attestation covers all required capabilities")
    return max(covering, key=lambda a: (TrustLevel(a.level).rank, a.expires_at))


def violation_of(problem: ATPError) -> str:
    """How heavily a refusal weighs that is the sender's doing; empty where it is none.

    That the key of somebody else, who added to the provenance, was revoked since is not.
    """
    if isinstance(problem, SignatureProvenance) and isinstance(problem.__cause__, KeyRevoked):
        return ""
    return VIOLATIONS.get(problem.code, "")


def _entry_signer(find_key: Callable[[str], KeyFacts | None], kid: str) -> tuple[str, PublicKey]:
    """Whose key signed an entry; one that has been rotated since may well be older."""
    key = find_key(kid)
    if key is None:
        raise KeyUnknown("no agent has the key that it names")
    if key.status not in {"active", "retired"}:
        raise KeyRevoked("the key that it names was revoked")
    return key.agent, key.public


def _judge(verified: VerifiedEnvelope, facts: Facts, found: _Findings) -> None:
    envelope = verified.envelope
    _check_sender(facts.sender)  # (1)
    assert facts.sender is not None
    attestation = best_attestation(facts.attestations, kid=verified.kid, now=facts.now)  # (2)
    found.level, found.issuer = attestation.level, attestation.issuer
    found.inputs = _inputs_for(facts.inputs, attestation)
    found.total = facts.score(found.inputs, facts.now, facts.profile).total  # (3)
    _weigh(envelope, facts, found)
    recipient = _check_target(envelope, facts, found)  # (4)
    _check_response(verified, facts, found)  # (5)
    level = demanded_level(envelope, recipient, now=facts.now) if recipient else ""  # (6)
    _extend_chain(verified, facts, found)  # (7)
    context = _context(verified, facts, found)
    if facts.audience:
        _judge_audience(envelope, facts, context, found)  # (4) (6) (8)
        return
    if recipient is not None:
        context |= recipient_context(recipient, level, facts, facts.policy_set.uses)
    found.decision = policies.evaluate(  # (8)
        facts.policy_set, context, payload=envelope.payload, throttled=facts.is_over
    )
    _find_blame(found.decision, context, envelope, found)


def _weigh(envelope: Envelope, facts: Facts, found: _Findings) -> None:
    """How sensitive it is: by its sender alone, and with what came before and who gets it."""
    assert facts.sender is not None
    found.own_sensitivity = policies.effective_sensitivity(
        envelope.sensitivity, facts.sender.sensitivity_floor
    )
    cause = facts.cause if facts.cause is not None and facts.cause.received else None
    found.sensitivity = policies.effective_sensitivity(
        found.own_sensitivity,
        facts.recipient.sensitivity_floor if facts.recipient else None,
        facts.request.sensitivity if facts.request else None,
        cause.chain.highest_sensitivity if cause else None,
    )
    found.chain = Chain(found.level, found.total, 1, found.sensitivity)
    found.own_chain = found.chain


def _judge_audience(
    envelope: Envelope, facts: Facts, context: Mapping[str, Any], found: _Findings
) -> None:
    """Judge a broadcast for each of those who are there."""
    hearing = hear(envelope, facts, context, level=found.level, total=found.total)
    found.hearing = hearing
    if hearing.hearers:
        found.decision, found.sensitivity = hearing.decisions[0], hearing.sensitivity
        return
    why = hearing.main_refusal
    found.decision = why.decision
    if why.decision is not None:
        found.sensitivity = why.context["data.sensitivity"]
        _find_blame(why.decision, why.context, envelope, found)


def _find_blame(
    decision: policies.Decision, context: Mapping[str, Any], envelope: Envelope, found: _Findings
) -> None:
    assert found.own_chain is not None
    found.blame = blame(
        decision,
        context,
        envelope.payload,
        own_sensitivity=found.own_sensitivity,
        own_chain=found.own_chain,
    )


def _check_sender(sender: AgentFacts | None) -> None:
    if sender is None:
        raise IdentityUnknown("this agent is not registered")
    if sender.status == "revoked":
        raise IdentityRevoked("this agent has been revoked")
    if sender.status != "active":
        raise IdentityNotActive(f"this agent is {sender.status}")


def _inputs_for(inputs: scoring.ScoreInputs, attestation: AttestationFacts) -> scoring.ScoreInputs:
    """The inputs as they stand for the attestation that this envelope's key has."""
    if (inputs.level, inputs.expires_at) == (attestation.level, attestation.expires_at):
        return inputs
    return replace(
        inputs,
        level=attestation.level,
        issued_at=attestation.issued_at,
        expires_at=attestation.expires_at,
        attested_capabilities=tuple(sorted(attestation.capabilities)),
    )


def _check_target(envelope: Envelope, facts: Facts, found: _Findings) -> RecipientFacts | None:
    """Who the envelope is addressed to; `None` for a broadcast, which is judged by hearer."""
    broadcast = envelope.message_type == MessageType.BROADCAST
    if broadcast != (envelope.target == BROADCAST_TARGET):
        raise MalformedEnvelope("broadcasts, and nothing else, are addressed to *")
    if broadcast:
        return None
    if envelope.target == envelope.sender:
        raise RecipientSelf("an agent can't send to itself")
    recipient = facts.addressee
    if recipient is None or recipient.agent.status != "active":
        raise RecipientUnavailable(f"no agent {envelope.target} can be reached through this hub")
    check_takes(recipient, level=found.level, total=found.total)
    return recipient


def _check_response(verified: VerifiedEnvelope, facts: Facts, found: _Findings) -> None:
    envelope, request = verified.envelope, facts.request
    if envelope.message_type != MessageType.RESPONSE:
        if verified.req is not None:
            raise MalformedEnvelope("only a response may have the claim req")
        return
    if request is None or (request.target, request.sender) != (envelope.sender, envelope.target):
        raise RecipientNoRequest("no such request was sent to this agent by its target")
    if request.request_id != envelope.request_id:  # what applications match answers by
        raise RecipientNoRequest("the request that it answers has another requestId")
    if request.answered:
        raise RecipientNoRequest("that request has been answered already")
    if request.expires_at <= facts.now:
        raise ClockExpired("the request expired before it was answered")
    if request.requires_trust and is_below(found.level, request.requires_trust):
        raise TrustLevelTooLow(f"the request may only be answered from {request.requires_trust} up")


def _extend_chain(verified: VerifiedEnvelope, facts: Facts, found: _Findings) -> None:
    if verified.cause is None:
        return
    cause = facts.cause
    if cause is None or not cause.received:
        raise TrustCauseInvalid(
            "this agent did not receive the envelope that it names as the cause"
        )
    if cause.chain.depth >= DEEPEST_CHAIN:
        found.blame = Blame()  # others have made it so long
        raise TrustCauseInvalid(f"more than {DEEPEST_CHAIN} envelopes led to this one")
    found.chain = Chain(
        min(cause.chain.lowest_level, found.level, key=lambda name: TrustLevel(name).rank),
        min(cause.chain.lowest_score, found.total),
        cause.chain.depth + 1,
        found.sensitivity,
    )


def _context(verified: VerifiedEnvelope, facts: Facts, found: _Findings) -> dict[str, Any]:
    """The field values that rules may ask for, the recipient's aside; unknown ones are left out."""
    envelope, sender, chain = verified.envelope, facts.sender, found.chain
    assert sender is not None
    assert chain is not None
    assert found.inputs is not None
    context: dict[str, Any] = {
        "sender.id": sender.id,
        "sender.level": found.level,
        "sender.score": found.total,
        "sender.capabilities": found.inputs.attested_capabilities,
        "sender.organisation": sender.organisation,
        "sender.tags": sender.tags,
        "sender.key_algorithm": found.inputs.key_algorithm,
        "message.type": envelope.message_type,
        "message.size": len(envelope.canonical),
        "message.required_capabilities": envelope.required_capabilities,
        "message.allowed_tools": envelope.allowed_tools,
        "message.age": max(0, int(facts.now) - verified.issued_at),
        "data.sensitivity": found.sensitivity,
        "time.now": facts.now,
        **chain_context(chain),
        **facts.rates,
    }
    if envelope.max_lifespan_seconds is not None:
        context["message.lifespan_exceeded"] = (
            context["message.age"] > envelope.max_lifespan_seconds
        )
    return context


def _refusal(problem: ATPError, found: _Findings) -> Verdict:
    status = "denied"
    if isinstance(problem, ClockExpired):
        status = "expired"
    elif isinstance(problem, FlowError):
        status = "busy"
    if found.blame is None:
        found.blame = Blame(violation_of(problem), problem.code)
    return _verdict(status, problem.code, problem.detail, found)


def _unheard(hearing: Hearing, found: _Findings) -> Verdict:
    """The verdict on a broadcast that nobody who is there may hear."""
    why, present = hearing.main_refusal, hearing.left_out.total()
    return _verdict(
        why.status, why.code, f"{why.detail}; nobody of the {present} who are there hears it", found
    )


def _verdict(status: str, code: str, detail: str, found: _Findings) -> Verdict:
    decision, hearing, blamed = found.decision, found.hearing, found.blame or Blame()
    decisions = (decision,) if decision else ()
    return Verdict(
        status=status,
        code=code,
        detail=detail,
        score=found.total,
        level=found.level,
        sensitivity=found.sensitivity,
        chain=found.chain,
        issuer=found.issuer,
        decision=decision,
        inputs=found.inputs,
        violation=blamed.severity,
        violated=blamed.rule if blamed.severity else "",
        rule=decision.rule if decision else "",
        hearers=tuple(hearing.hearers) if hearing else (),
        left_out=dict(hearing.left_out) if hearing else {},
        decisions=tuple(hearing.decisions) or decisions if hearing else decisions,
    )

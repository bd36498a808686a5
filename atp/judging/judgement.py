"""The ordered judgement of one envelope: it takes facts and returns a verdict with its reason.

It is pure, so the hub, a simulation and an offline verifier get the same answer
(docs/design/architecture.md#folders). Where a claim in the envelope differs from the facts, the
facts count.
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
    FlowRecipientFull,
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
from atp.judging.message import MessageFacts
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
    "judge_message",
    "verify",
    "violation_of",
]

DEEPEST_CHAIN = 32  # envelopes in a chain of causes; the same number as ENVELOPE_MAX_DEPTH

# Denials that are violations of the sender, with their severity (docs/design/trust.md#the-score).
# A denial that is the other side's fault is not a violation.
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
    """The result of a judgement, with everything that the trail records about its reason.

    `attestation` is the `jti` of the attestation that vouched for the sender's key, `issuer` who
    issued it. `violation` is the severity if a denial is the sender's own doing, `violated` the
    rule or code that it broke. Of a broadcast, `hearers` get it, `left_out` counts the others by
    code, and `decisions` are those of the hearers, the first of which is `decision`.
    """

    status: str
    code: str
    detail: str
    score: int = 0
    level: str = ""
    sensitivity: str = ""
    chain: Chain | None = None
    issuer: str = ""
    attestation: str = ""
    decision: policies.Decision | None = None
    inputs: scoring.ScoreInputs | None = None
    violation: str = ""
    violated: str = ""
    rule: str = ""
    retry_after: float | None = None  # seconds until a retry can succeed, if that is known
    hearers: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    decisions: tuple[policies.Decision, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the envelope is accepted."""
        return self.status == "accepted"

    @property
    def judged_for(self) -> int:
        """How many agents that do not hear a broadcast were judged; a full inbox needs no look."""
        return sum(n for code, n in self.left_out.items() if code != FlowRecipientFull.code)

    @property
    def counted_by(self) -> tuple[ParsedRule, ...]:
        """The throttle rules that count this envelope, each once."""
        counted = {rule.key: rule for one in self.decisions for rule in one.counted_by}
        return tuple(counted.values())

    @property
    def matched(self) -> tuple[policies.Match, ...]:
        """All enforced rules that matched, each once; of a broadcast, those of all its hearers."""
        if len(self.decisions) == 1:
            return self.decisions[0].matched
        return tuple(dict.fromkeys(match for one in self.decisions for match in one.matched))

    @property
    def monitored(self) -> tuple[policies.Match, ...]:
        """The rules that matched in policies in monitor mode, each once."""
        if len(self.decisions) == 1:
            return self.decisions[0].monitored
        return tuple(dict.fromkeys(match for one in self.decisions for match in one.monitored))


@dataclass(slots=True)
class _Findings:
    """The results so far. A refusal half way through keeps them for the verdict."""

    level: str = ""
    issuer: str = ""
    attestation: str = ""
    sensitivity: str = ""
    total: int = 0
    inputs: scoring.ScoreInputs | None = None
    chain: Chain | None = None
    own_sensitivity: str = ""  # as declared by the sender itself
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
    """Check that the session's agent signed `envelope` with an active key of its own.

    Each added provenance entry must be signed by the agent that it names; `find_key` finds that
    agent's key by thumbprint. `now` is in seconds since 1970. Raises `IdentityMismatch`,
    `KeyUnknown`, `KeyRevoked`, `SignatureProvenance`, or an error of `verify_envelope`.
    """
    if envelope.sender != session_agent:
        raise IdentityMismatch("agentIdentity.id is not the agent of this session")
    if key is None or key.agent != session_agent:
        raise KeyUnknown("this agent has no key with the thumbprint that the signature names")
    if key.status != "active":
        raise KeyRevoked(f"the signing key is {key.status}; sign with the agent's active key")
    verified = verify_envelope(envelope, key.public, hub_id=hub_id, now=now)
    if entries := envelope.provenance:
        signer = partial(_entry_signer, find_key)
        verify_entries(entries, digest=envelope.digest, find_key=signer, now=now)
    return verified


def judge(verified: VerifiedEnvelope, facts: Facts) -> Verdict:
    """Judge a verified envelope; see `judge_message`."""
    return judge_message(MessageFacts.of(verified), facts)


def judge_message(message: MessageFacts, facts: Facts) -> Verdict:
    """Judge what a verified envelope says, in eight steps; the first that refuses it decides.

    (1) The sender is active. (2) A valid attestation vouches for its key. (3) Its score is
    computed. (4) The recipient can be reached and takes mail of this level and score. (5) A
    response answers a request that was sent to its sender. (6) The recipient meets the sender's
    demands. (7) The sender received the cause. (8) The policies allow it.

    Of a broadcast, (4), (6) and (8) are checked for each hearer. A hearer that does not fit is left
    out; the broadcast is refused only if no connected agent of its audience may hear it.

    It is pure: it reads only its arguments and changes nothing. The caller counts the envelope for
    the throttle rules in `verdict.counted_by`.
    """
    found = _Findings()
    try:
        _judge(message, facts, found)
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
    """Return the valid attestation of key `kid` with the highest level that covers `required`.

    Levels and capabilities of two attestations are never combined. `now` is in seconds since 1970.
    Raises `AttestationMissing`, `AttestationExpired`, `AttestationCapability`, or the error of the
    fault on record, such as `AttestationRevoked` or `AttestationUnreadable`.
    """
    ours = [a for a in attestations if a.jkt == kid]
    if not ours:
        raise AttestationMissing("no issuer has attested this agent's key")
    sound = [a for a in ours if not a.fault]
    if not sound:
        raise from_code(ours[0].fault, f"its attestation by {ours[0].issuer} is not valid")
    current = [a for a in sound if a.issued_at <= now < a.expires_at]
    if not current:
        raise AttestationExpired("its attestation is not valid at this time")
    covering = [a for a in current if a.capabilities.issuperset(required)]
    if not covering:
        raise AttestationCapability("no single attestation covers all required capabilities")
    return max(covering, key=lambda a: (TrustLevel(a.level).rank, a.expires_at))


def violation_of(problem: ATPError) -> str:
    """Return the severity of the violation that a refusal is; "" if it is none.

    A provenance entry whose signer's key was revoked later is no violation of the sender.
    """
    if isinstance(problem, SignatureProvenance) and isinstance(problem.__cause__, KeyRevoked):
        return ""
    return VIOLATIONS.get(problem.code, "")


def _entry_signer(find_key: Callable[[str], KeyFacts | None], kid: str) -> tuple[str, PublicKey]:
    """Return the agent and the key that signed an entry. The key may be retired by now."""
    key = find_key(kid)
    if key is None:
        raise KeyUnknown("no agent has the key that it names")
    if key.status not in {"active", "retired"}:
        raise KeyRevoked("the key that it names was revoked")
    return key.agent, key.public


def _judge(message: MessageFacts, facts: Facts, found: _Findings) -> None:
    _check_sender(facts.sender)  # (1)
    assert facts.sender is not None
    attestation = best_attestation(facts.attestations, kid=message.kid, now=facts.now)  # (2)
    found.level, found.issuer = attestation.level, attestation.issuer
    found.attestation = attestation.jti
    found.inputs = _inputs_for(facts.inputs, attestation)
    found.total = facts.score(found.inputs, facts.now, facts.profile).total  # (3)
    _weigh(message, facts, found)
    recipient = _check_target(message, facts, found)  # (4)
    _check_response(message, facts, found)  # (5)
    level = demanded_level(message, recipient, now=facts.now) if recipient else ""  # (6)
    _extend_chain(message, facts, found)  # (7)
    context = _context(message, facts, found)
    if facts.audience:
        _judge_audience(message, facts, context, found)  # (4) (6) (8)
        return
    if recipient is not None:
        context |= recipient_context(recipient, level, facts, facts.policy_set.uses)
    found.decision = policies.evaluate(  # (8)
        facts.policy_set, context, payload=message.payload, throttled=facts.is_over
    )
    _find_blame(found.decision, context, message, found)


def _weigh(message: MessageFacts, facts: Facts, found: _Findings) -> None:
    """Find the sender's own sensitivity, and the one with recipient, request and chain."""
    assert facts.sender is not None
    found.own_sensitivity = policies.effective_sensitivity(
        message.sensitivity, facts.sender.sensitivity_floor
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
    message: MessageFacts, facts: Facts, context: Mapping[str, Any], found: _Findings
) -> None:
    """Judge a broadcast for each connected agent."""
    hearing = hear(message, facts, context, level=found.level, total=found.total)
    found.hearing = hearing
    if hearing.hearers:
        found.decision, found.sensitivity = hearing.decisions[0], hearing.sensitivity
        return
    why = hearing.main_refusal
    found.decision = why.decision
    if why.decision is not None:
        found.sensitivity = why.context["data.sensitivity"]
        _find_blame(why.decision, why.context, message, found)


def _find_blame(
    decision: policies.Decision, context: Mapping[str, Any], message: MessageFacts, found: _Findings
) -> None:
    assert found.own_chain is not None
    found.blame = blame(
        decision,
        context,
        message.payload,
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
    """Return the score inputs with the attestation of the key that signed this message."""
    if (inputs.level, inputs.expires_at) == (attestation.level, attestation.expires_at):
        return inputs
    return replace(
        inputs,
        level=attestation.level,
        issued_at=attestation.issued_at,
        expires_at=attestation.expires_at,
        attested_capabilities=tuple(sorted(attestation.capabilities)),
    )


def _check_target(message: MessageFacts, facts: Facts, found: _Findings) -> RecipientFacts | None:
    """Return the facts about the addressee; `None` for a broadcast."""
    broadcast = message.message_type == MessageType.BROADCAST
    if broadcast != (message.target == BROADCAST_TARGET):
        raise MalformedEnvelope("a broadcast must be addressed to *, and no other message may be")
    if broadcast:
        return None
    if message.target == message.sender:
        raise RecipientSelf("an agent can't send to itself")
    recipient = facts.addressee
    if recipient is None or recipient.agent.status != "active":
        raise RecipientUnavailable(f"no agent {message.target} can be reached through this hub")
    check_takes(recipient, level=found.level, total=found.total)
    return recipient


def _check_response(message: MessageFacts, facts: Facts, found: _Findings) -> None:
    request = facts.request
    if message.message_type != MessageType.RESPONSE:
        if message.req is not None:
            raise MalformedEnvelope("only a response may have the claim req")
        return
    if request is None or (request.target, request.sender) != (message.sender, message.target):
        raise RecipientNoRequest("no such request was sent to this agent by its target")
    if request.request_id != message.request_id:  # applications match answers by it
        raise RecipientNoRequest("the request that it answers has a different requestId")
    if request.answered:
        raise RecipientNoRequest("that request has been answered already")
    if request.expires_at <= facts.now:
        raise ClockExpired("the request expired before it was answered")
    if request.requires_trust and is_below(found.level, request.requires_trust):
        raise TrustLevelTooLow(
            f"the request takes answers from level {request.requires_trust} or higher"
        )


def _extend_chain(message: MessageFacts, facts: Facts, found: _Findings) -> None:
    if message.cause is None:
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


def _context(message: MessageFacts, facts: Facts, found: _Findings) -> dict[str, Any]:
    """Return the field values that rules may use, except the recipient's. Unknown are left out."""
    sender, chain = facts.sender, found.chain
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
        "message.type": message.message_type,
        "message.size": message.size,
        "message.required_capabilities": message.required_capabilities,
        "message.allowed_tools": message.allowed_tools,
        "message.age": max(0, int(facts.now) - message.issued_at),
        "data.sensitivity": found.sensitivity,
        "time.now": facts.now,
        **chain_context(chain),
        **facts.rates,
    }
    if message.max_lifespan_seconds is not None:
        context["message.lifespan_exceeded"] = context["message.age"] > message.max_lifespan_seconds
    context.update(message.recorded)
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
    """Return the verdict on a broadcast that no connected agent may hear."""
    why, present = hearing.main_refusal, hearing.left_out.total()
    return _verdict(
        why.status,
        why.code,
        f"{why.detail}; none of the {present} connected agents may hear it",
        found,
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
        attestation=found.attestation,
        decision=decision,
        inputs=found.inputs,
        violation=blamed.severity,
        violated=blamed.rule if blamed.severity else "",
        rule=decision.rule if decision else "",
        hearers=tuple(hearing.hearers) if hearing else (),
        left_out=dict(hearing.left_out) if hearing else {},
        decisions=tuple(hearing.decisions) or decisions if hearing else decisions,
    )

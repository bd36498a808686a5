"""The errors of the protocol: one class for each stable code, all below `ATPError`.

Callers branch on the class or on `code`, never on the text::

    ATPError
    ├── MalformedError    malformed.*
    │     json, duplicate_member, text, number, too_deep, too_large, envelope, timestamp, frame,
    │     token, key, document
    ├── IdentityError     identity.* unknown, mismatch, not_active, revoked, invalid_id, enrolment
    ├── KeyProblem        key.* unknown, revoked, algorithm, unacceptable, missing, in_use
    ├── SignatureError    signature.* missing, invalid, header, claims, audience, digest, provenance
    ├── ReplayError       replay.* conflict, nonce
    ├── ClockError        clock.* expired, not_yet, too_long, mismatch
    ├── AttestationError  attestation.*
    │     missing, expired, revoked, unreadable, issuer, limit, capability
    ├── RecipientError    recipient.* unavailable, no_request, no_handler, self
    ├── TrustError        trust.* level, score, cause
    ├── PolicyError       policy.* denied, none, held, throttled
    ├── FlowError         flow.* busy, throttled, recipient_full, timeout, window, too_many
    ├── SessionError      session.*
    │     authentication, timeout, superseded, revoked, fenced, closed, transport, forked, loop,
    │     send_only
    ├── HandlerError      handler.* failed
    └── OutboxError       outbox.* unusable, in_use, full

What a program causes by a wrong call is a `ValueError`, `TypeError` or `RuntimeError` too, and
`FlowTimeout` is a `TimeoutError`, so that code that knows nothing of ATP can catch them. A subclass
is named after family and code: `malformed.too_deep` is `MalformedTooDeep` (the three of `trust` say
more, because types and scores have those names). What status or close code an edge answers with is
that edge's own table; docs/errors.md shows both.
"""

from __future__ import annotations

from atp.error_base import ATPError, excerpt, leaves

__all__ = [  # noqa: RUF022  # as sorted() has it
    "ATPError", "AttestationCapability", "AttestationError", "AttestationExpired",
    "AttestationIssuer", "AttestationLimit", "AttestationMissing", "AttestationRevoked",
    "AttestationUnreadable", "BY_CODE", "ClockError", "ClockExpired", "ClockMismatch",
    "ClockNotYet", "ClockTooLong", "FlowBusy", "FlowError", "FlowRecipientFull",
    "FlowThrottled", "FlowTimeout", "FlowTooMany", "FlowWindow", "HandlerError",
    "HandlerFailed", "IdentityEnrolment", "IdentityError", "IdentityInvalidId",
    "IdentityMismatch", "IdentityNotActive", "IdentityRevoked", "IdentityUnknown",
    "KeyAlgorithm", "KeyInUse", "KeyMissing", "KeyProblem", "KeyRevoked", "KeyUnacceptable",
    "KeyUnknown", "MalformedDocument", "MalformedDuplicateMember", "MalformedEnvelope",
    "MalformedError", "MalformedFrame", "MalformedJson", "MalformedKey", "MalformedNumber",
    "MalformedText", "MalformedTimestamp", "MalformedToken", "MalformedTooDeep",
    "MalformedTooLarge", "OutboxError", "OutboxFull", "OutboxInUse", "OutboxUnusable",
    "PolicyDenied", "PolicyError", "PolicyHeld", "PolicyNone", "PolicyThrottled",
    "RecipientError", "RecipientNoHandler", "RecipientNoRequest", "RecipientSelf",
    "RecipientUnavailable", "ReplayConflict", "ReplayError", "ReplayNonce",
    "SessionAuthentication", "SessionClosed", "SessionError", "SessionFenced", "SessionForked",
    "SessionLoop", "SessionRevoked", "SessionSendOnly", "SessionSuperseded", "SessionTimeout",
    "SessionTransport",
    "SignatureAudience", "SignatureClaims", "SignatureDigest", "SignatureError",
    "SignatureHeader", "SignatureInvalid", "SignatureMissing", "SignatureProvenance",
    "TrustCauseInvalid", "TrustError", "TrustLevelTooLow", "TrustScoreTooLow", "excerpt",
    "from_code",
]  # fmt: skip


class MalformedError(ATPError, ValueError, code="malformed"):
    """The input does not follow the grammar; sending it again unchanged is pointless.

    `pointer` is the JSON Pointer (RFC 6901) to the place of the fault in the value that was
    inspected, such as `/payload/data/rows/3`. It is "" if the fault is not at one place.
    """

    pointer: str = ""


class MalformedJson(MalformedError, TypeError, code="malformed.json"):
    """The text is not JSON, or a value has no JSON form."""


class MalformedDuplicateMember(MalformedError, code="malformed.duplicate_member"):
    """An object has a member twice, so two readers could read different values."""


class MalformedText(MalformedError, code="malformed.text"):
    """The text has bad UTF-8, a lone surrogate, or a NUL where text is stored."""


class MalformedNumber(MalformedError, code="malformed.number"):
    """The RFC 8785 form of a number would not keep its exact value."""


class MalformedTooDeep(MalformedError, code="malformed.too_deep"):
    """Objects and arrays are nested deeper than allowed."""


class MalformedTooLarge(MalformedError, code="malformed.too_large"):
    """The input has more bytes than the limit."""


class MalformedEnvelope(MalformedError, code="malformed.envelope"):
    """The JSON is not an envelope."""


class MalformedTimestamp(MalformedError, code="malformed.timestamp"):
    """The text is not an RFC 3339 time in UTC with `Z`, or not a date that exists."""


class MalformedFrame(MalformedError, code="malformed.frame"):
    """The JSON is not a frame of the protocol."""


class MalformedToken(MalformedError, code="malformed.token"):
    """The text is not a compact JWS, or its base64url is not canonical."""


class MalformedKey(MalformedError, code="malformed.key"):
    """The key can't be read."""


class MalformedDocument(MalformedError, TypeError, code="malformed.document"):
    """A policy, profile or other document breaks its schema.

    `field` is the path of the wrong member, such as `weights.identity` or `rules.0.action`. It is
    "" if that is not one member.
    """

    def __init__(
        self, detail: str = "", *, field: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.field = field


class IdentityError(ATPError, code="identity"):
    """The sender's identity is unknown, not active, or not the one that it claims."""


class IdentityUnknown(IdentityError, code="identity.unknown"):
    """No agent of that id is registered here."""


class IdentityMismatch(IdentityError, code="identity.mismatch"):
    """Token, session and envelope name different agents."""


class IdentityNotActive(IdentityError, code="identity.not_active"):
    """The agent is pending or suspended, or its issuer is suspended."""


class IdentityRevoked(IdentityError, code="identity.revoked"):
    """The agent has been revoked."""


class IdentityInvalidId(IdentityError, ValueError, TypeError, code="identity.invalid_id"):
    """The text does not follow the grammar of agent ids."""


class IdentityEnrolment(IdentityError, code="identity.enrolment"):
    """The enrolment token is unknown, used, expired or for another agent."""


class KeyProblem(ATPError, code="key"):
    """The key that signed, or was offered, can't be used."""


class KeyUnknown(KeyProblem, code="key.unknown"):
    """The agent has no key of that thumbprint."""


class KeyRevoked(KeyProblem, code="key.revoked"):
    """An officer refused or revoked the key, or it was not in use at that time."""


class KeyAlgorithm(KeyProblem, ValueError, code="key.algorithm"):
    """The header names another algorithm than that of the key."""


class KeyUnacceptable(KeyProblem, ValueError, code="key.unacceptable"):
    """The key is too weak, of low order, or not meant for signatures."""


class KeyMissing(KeyProblem, ValueError, code="key.missing"):
    """A key is needed, but none was given."""


class KeyInUse(KeyProblem, code="key.in_use"):
    """The thumbprint is registered already; one key serves one purpose."""


class SignatureError(ATPError, code="signature"):
    """The signature, or the content that it covers, is not valid."""


class SignatureMissing(SignatureError, code="signature.missing"):
    """There is no signature."""


class SignatureInvalid(SignatureError, code="signature.invalid"):
    """The signature does not fit the key and the signed bytes."""


class SignatureHeader(SignatureError, code="signature.header"):
    """The header is not exactly `alg`, `kid` and the expected `typ`."""


class SignatureClaims(SignatureError, code="signature.claims"):
    """A claim is missing, unknown, of the wrong type or of the wrong value."""


class SignatureAudience(SignatureError, code="signature.audience"):
    """The token is addressed to someone else."""


class SignatureDigest(SignatureError, code="signature.digest"):
    """The signed digest is not the digest of the content."""


class SignatureProvenance(SignatureError, code="signature.provenance"):
    """The provenance entries are not the ones that were signed."""


class ReplayError(ATPError, code="replay"):
    """The same identifier was used before, for something else."""


class ReplayConflict(ReplayError, code="replay.conflict"):
    """The message id was used before with other content.

    `status` and `entry` are those of the first envelope with this id, if the hub named them.
    """

    status: str = ""
    entry: int | None = None


class ReplayNonce(ReplayError, code="replay.nonce"):
    """The nonce was not issued for this socket, or has been used."""


class ClockError(ATPError, code="clock"):
    """The token is not valid at this time."""


class ClockExpired(ClockError, code="clock.expired"):
    """The expiry has passed."""


class ClockNotYet(ClockError, code="clock.not_yet"):
    """The time of issue is in the future."""


class ClockTooLong(ClockError, code="clock.too_long"):
    """The token is valid for longer than its kind allows."""


class ClockMismatch(ClockError, code="clock.mismatch"):
    """The token's time of issue and the envelope's timestamp disagree."""


class AttestationError(ATPError, code="attestation"):
    """No valid attestation covers the agent."""


class AttestationMissing(AttestationError, code="attestation.missing"):
    """There is no attestation."""


class AttestationExpired(AttestationError, code="attestation.expired"):
    """The attestation has expired, or is not valid yet."""


class AttestationRevoked(AttestationError, code="attestation.revoked"):
    """The attestation, or an issuer above it, has been revoked or suspended."""


class AttestationUnreadable(AttestationError, code="attestation.unreadable"):
    """There is an attestation, but it can't be read or verified."""


class AttestationIssuer(AttestationError, code="attestation.issuer"):
    """The issuer is unknown, not active, or its chain does not reach an anchor."""


class AttestationLimit(AttestationError, code="attestation.limit"):
    """The attestation exceeds what its issuer may attest."""


class AttestationCapability(AttestationError, code="attestation.capability"):
    """No single attestation covers the required capabilities."""


class RecipientError(ATPError, code="recipient"):
    """The recipient can't receive this."""


class RecipientUnavailable(RecipientError, code="recipient.unavailable"):
    """The recipient is unknown, revoked or unreachable; the hub does not say which."""


class RecipientNoRequest(RecipientError, code="recipient.no_request"):
    """The response answers a request that does not exist, is answered already, or has expired."""


class RecipientNoHandler(RecipientError, code="recipient.no_handler"):
    """The recipient has no handler for messages of this type."""


class RecipientSelf(RecipientError, ValueError, code="recipient.self"):
    """An agent can't send to itself."""


class TrustError(ATPError, code="trust"):
    """Trust is not high enough."""


class TrustLevelTooLow(TrustError, code="trust.level"):
    """The level is below what the other side requires."""


class TrustScoreTooLow(TrustError, code="trust.score"):
    """The score is below what is required."""


class TrustCauseInvalid(TrustError, code="trust.cause"):
    """The cause is unknown, was not received by the sender, or makes the chain too long."""


class PolicyError(ATPError, code="policy"):
    """The policies do not let the message pass."""


class PolicyDenied(PolicyError, code="policy.denied"):
    """A rule denies the message."""


class PolicyNone(PolicyError, code="policy.none"):
    """No rule allows the message."""


class PolicyHeld(PolicyError, code="policy.held"):
    """The message is held until officers decide."""


class PolicyThrottled(PolicyError, code="policy.throttled"):
    """A rule's limit is reached; the message may pass later."""


class FlowError(ATPError, code="flow"):
    """There is too much work at this time, or it took too long."""


class FlowBusy(FlowError, code="flow.busy"):
    """The hub can't accept it now; nothing was recorded."""


class FlowThrottled(FlowError, code="flow.throttled"):
    """There were too many messages or logins in a short time."""


class FlowRecipientFull(FlowError, code="flow.recipient_full"):
    """The recipient's inbox, or this sender's share of it, is full."""


class FlowTimeout(FlowError, TimeoutError, code="flow.timeout"):
    """No answer came in time."""


class FlowWindow(FlowError, code="flow.window"):
    """There are more envelopes without a receipt than the window allows."""


class FlowTooMany(FlowError, code="flow.too_many"):
    """A limit is reached on how many may exist at once, or be opened in a minute."""


class SessionError(ATPError, code="session"):
    """The connection can't go on."""


class SessionAuthentication(SessionError, code="session.authentication"):
    """The proof of the agent's identity is not valid."""


class SessionTimeout(SessionError, code="session.timeout"):
    """The agent did not authenticate in time."""


class SessionSuperseded(SessionError, code="session.superseded"):
    """A newer login of the same agent took over."""


class SessionRevoked(SessionError, code="session.revoked"):
    """The agent or its issuer was suspended or revoked while the agent was connected."""


class SessionFenced(SessionError, code="session.fenced"):
    """The session is no longer the agent's current one."""


class SessionClosed(SessionError, code="session.closed"):
    """The connection is closed."""


class SessionTransport(SessionError, code="session.transport"):
    """The transport failed."""


class SessionForked(SessionError, RuntimeError, code="session.forked"):
    """The client was made in the parent process, before a fork."""


class SessionLoop(SessionError, RuntimeError, code="session.loop"):
    """The client belongs to another event loop or thread."""


class SessionSendOnly(SessionError, RuntimeError, code="session.send_only"):
    """A client that only sends takes no mail, so it can't have handlers."""


class HandlerError(ATPError, code="handler"):
    """The recipient's own code failed."""


class HandlerFailed(HandlerError, code="handler.failed"):
    """The handler of the recipient failed, or ended without an answer."""


class OutboxError(ATPError, code="outbox"):
    """The outbox file of this agent can't take a message."""


class OutboxUnusable(OutboxError, code="outbox.unusable"):
    """The outbox file can't be opened, is damaged, or is of another agent or hub."""


class OutboxInUse(OutboxError, code="outbox.in_use"):
    """Another client uses the outbox file."""


class OutboxFull(OutboxError, code="outbox.full"):
    """The outbox file can't grow: its limit is reached, or the disk is full."""


def from_code(code: str, detail: str = "", *, retry_after: float | None = None) -> ATPError:
    """Return the error of a code; an unknown one, of a newer peer, gives a plain `ATPError`."""
    if (known := BY_CODE.get(code)) is not None:
        return known(detail, retry_after=retry_after)
    error = ATPError(detail, retry_after=retry_after)
    error.code = code
    return error


BY_CODE: dict[str, type[ATPError]] = {leaf.code: leaf for leaf in leaves(ATPError)}

"""The wire envelope: build, sign, parse, verify (docs/protocol.md#the-envelope).

Parsing returns an `Envelope`, of which nothing is verified. Verification returns a
`VerifiedEnvelope`, which the sender's key signed. Level, score, attestation and capabilities inside
both are claims of the sender. The hub uses its registry instead.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from atp.errors import (
    ClockMismatch,
    ClockTooLong,
    MalformedEnvelope,
    MalformedError,
    SignatureAudience,
    SignatureClaims,
    SignatureDigest,
    SignatureMissing,
    excerpt,
)
from atp.trust import signing
from atp.trust.envelope_members import VERSION, check_document, check_size, inspect_document
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.provenance import check_provenance_claim, provenance_claim
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS, TokenKind, check_claims, check_times
from atp.types import (
    DataSensitivity,
    IAgentIdentity,
    IPolicyContext,
    IProvenanceEntry,
    MessageType,
    TrustLevel,
)
from atp.wire.canonical import (
    ENVELOPE_MAX_BYTES,
    ENVELOPE_MAX_DEPTH,
    b64url,
    check_depth,
    is_plain,
    locate_fault,
    parse_noted,
    serialize,
    sha256_b64url,
)
from atp.wire.timestamps import format_timestamp, parse_timestamp

__all__ = [
    "Envelope",
    "VerifiedEnvelope",
    "envelope_from_value",
    "new_document",
    "parse_envelope",
    "sign_envelope",
    "signature_header",
    "signed_envelope",
    "signing_claims",
    "verify_claims",
    "verify_envelope",
    "verify_signature",
]

# docs/protocol.md#digest-and-signature: `iat` is within 1 s of `timestamp`
TIMESTAMP_TOLERANCE_SECONDS = 1
SALT_BYTES = 16  # docs/protocol.md#the-envelope: 128 random bits
_MESSAGE_TYPES: Final = {kind.value: kind for kind in MessageType}
UNSIGNED_MEMBERS = frozenset({"signature", "trustScore", "provenance"})  # `prov` covers the last


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope, of which nothing is verified.

    `document` is the object inside `ATP`; do not change it. `canonical` is the RFC 8785 form of the
    whole envelope, `digest` the base64url SHA-256 of the signed part, and `plain` that of
    `ParsedJson`. `message_id` is a UUID that the sender chose, `sender` the agent that the envelope
    names as its sender, `target` the recipient's id, or `*`, and `message_type` the type.
    """

    document: dict[str, Any]
    canonical: bytes
    digest: str
    plain: bool
    message_id: str
    sender: str
    target: str
    message_type: MessageType

    @property
    def request_id(self) -> str | None:
        """The id that a request and its response share; `None` for other messages."""
        return self.payload.get("requestId")

    @property
    def timestamp(self) -> float:
        """The time of signing according to the sender, in seconds since 1970."""
        return parse_timestamp(self.document["timestamp"])

    @property
    def sensitivity(self) -> DataSensitivity | None:
        """The sensitivity that the sender declares, or `None`."""
        declared = self._policy_context.get("dataSensitivity")
        return None if declared is None else DataSensitivity(declared)

    @property
    def required_capabilities(self) -> tuple[str, ...]:
        """The capabilities that the recipient's attestation must cover."""
        return tuple(self.payload.get("requiredCapabilities", ()))

    @property
    def requires_trust(self) -> TrustLevel | None:
        """The lowest level that the recipient may have, or `None` for any level."""
        level = self.payload.get("requiresTrust")
        return None if level is None else TrustLevel(level)

    @property
    def allowed_tools(self) -> tuple[str, ...]:
        """The tools that the recipient may use on it, according to the sender."""
        return tuple(self._policy_context.get("allowedTools", ()))

    @property
    def max_lifespan_seconds(self) -> int | None:
        """The greatest age at which it may be used, in seconds, or `None` without a limit."""
        return self._policy_context.get("maxLifespanSeconds")

    @property
    def claimed_level(self) -> TrustLevel | None:
        """The level that the sender claims, or `None`."""
        level = self.document.get("trustLevel")
        return None if level is None else TrustLevel(level)

    @property
    def provenance(self) -> list[dict[str, Any] | str]:
        """The plain entries, then the tokens of the entries that were added after signing."""
        return list(self.document.get("provenance", ()))

    @property
    def payload(self) -> dict[str, Any]:
        """The payload, including members that this version does not know."""
        payload: dict[str, Any] = self.document["payload"]
        return payload

    @property
    def data(self) -> Any:
        """The sender's data, or `None`."""
        return self.payload.get("data")

    @property
    def error(self) -> dict[str, Any] | None:
        """Of a response that reports a failure: its `code` and maybe `detail`; else `None`."""
        return self.payload.get("error")

    @property
    def signature(self) -> str | None:
        """The sender's token, or `None` if the envelope is not signed."""
        return self.document.get("signature")

    @property
    def notify(self) -> bool:
        """Whether the sender asks for notices about it."""
        return self.payload.get("notify", False) is True

    @property
    def _policy_context(self) -> dict[str, Any]:
        context: dict[str, Any] = self.document.get("policyContext", {})
        return context


@dataclass(frozen=True, slots=True)
class VerifiedEnvelope:
    """An envelope whose signature is verified. Times are whole seconds since 1970.

    `req` is the digest of the request that a response answers, or `None`. `cause` is the digest of
    the envelope that the sender was handling when it wrote this one, or `None`. `trace` is the
    trace id of W3C Trace Context, and `on_behalf_of` names for whom the sender acts; both are what
    the sender says, or `None`.
    """

    envelope: Envelope
    kid: str
    issued_at: int
    expires_at: int
    req: str | None
    cause: str | None
    trace: str | None = None
    on_behalf_of: str | None = None


def parse_envelope(data: bytes | str, *, max_bytes: int = ENVELOPE_MAX_BYTES) -> Envelope:
    """Read an envelope of at most `max_bytes` bytes; raises a `MalformedError`."""
    parsed = parse_noted(data, max_bytes=max_bytes, max_depth=ENVELOPE_MAX_DEPTH)
    return _envelope(parsed.value, plain=parsed.plain, canonical=parsed.canonical)


def envelope_from_value(value: Any, *, plain: bool = False) -> Envelope:
    """Read an envelope from a strictly parsed value, such as a frame; `plain`: see `ParsedJson`.

    Raises a `MalformedError` as `parse_envelope` does, also if it is too large.
    """
    envelope = _envelope(value, plain=plain or is_plain(value), canonical=None)
    check_depth(value, ENVELOPE_MAX_DEPTH, written=envelope.canonical)
    check_size(envelope.canonical)
    return envelope


def signature_header(envelope: Envelope) -> signing.Header:
    """Return the signature's header; raises `SignatureMissing` or as `signing.read_header`."""
    return signing.read_header(_signature(envelope))


def verify_envelope(
    envelope: Envelope, key: PublicKey, *, hub_id: str, now: float
) -> VerifiedEnvelope:
    """Verify the signature, and that it is valid at `now` (an auditor passes the acceptance time).

    Raises as `verify_signature`, and `ClockExpired` or `ClockNotYet`.
    """
    verified = verify_signature(envelope, key, hub_id=hub_id)
    times = {"iat": verified.issued_at, "exp": verified.expires_at}
    check_times(TokenKind.MESSAGE, times, now=now)
    return verified


def verify_signature(envelope: Envelope, key: PublicKey, *, hub_id: str) -> VerifiedEnvelope:
    """Verify that `key`, which must be the sender's, signed the envelope. Ignore the current time.

    Raises a `SignatureError`, a `ClockError`, `KeyAlgorithm`, or a `MalformedError` of the token.
    """
    claims = signing.verify(_signature(envelope), key, typ=TokenKind.MESSAGE.typ)
    verify_claims(envelope, claims, hub_id=hub_id)
    return VerifiedEnvelope(
        envelope=envelope,
        kid=key.kid,
        issued_at=claims["iat"],
        expires_at=claims["exp"],
        req=claims.get("req"),
        cause=claims.get("cause"),
        trace=claims.get("trace"),
        on_behalf_of=claims.get("onBehalfOf"),
    )


def verify_claims(envelope: Envelope, claims: Mapping[str, Any], *, hub_id: str) -> None:
    """Check that `claims` are exactly those that this envelope's signature must have.

    See docs/protocol.md#digest-and-signature. Raises a `SignatureError` or a `ClockError`.
    """
    check_claims(TokenKind.MESSAGE, claims)
    if claims["aud"] != [hub_id, envelope.target]:
        raise SignatureAudience("the envelope was signed for another hub or another recipient")
    if claims["iss"] != envelope.sender:
        raise SignatureClaims(f"iss is {excerpt(claims['iss'])}, not the sender")
    if claims["jti"] != envelope.message_id:
        raise SignatureClaims(f"jti is {excerpt(claims['jti'])}, not the messageId")
    if claims["digest"] != envelope.digest:
        raise SignatureDigest("the content is not the content that was signed")
    check_provenance_claim(envelope.document.get("provenance", ()), claims.get("prov"))
    if ("req" in claims) != (envelope.message_type is MessageType.RESPONSE):
        raise SignatureClaims("a response must have the claim req, and no other message may")
    if abs(claims["iat"] - envelope.timestamp) > TIMESTAMP_TOLERANCE_SECONDS:
        raise ClockMismatch("iat and timestamp are more than a second apart")
    if claims["exp"] - claims["iat"] > MESSAGE_MAX_LIFE_SECONDS:
        raise ClockTooLong(f"valid for more than {MESSAGE_MAX_LIFE_SECONDS} s")


def new_message_id() -> str:
    """Return a UUID of version 7 (RFC 9562 section 5.7).

    Such ids of one time are neighbours in an index. Random ids would touch a different page of a
    large index with each insert.
    """
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | 0x7 << 76 | secrets.randbits(76)
    return str(uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62))


def new_document(
    *,
    identity: IAgentIdentity,
    message_type: MessageType,
    target: str,
    data: Any = None,
    message_id: str | None = None,
    request_id: str | None = None,
    required_capabilities: Sequence[str] = (),
    requires_trust: TrustLevel | None = None,
    trust_level: TrustLevel | None = None,
    policy_context: IPolicyContext | None = None,
    provenance: Sequence[IProvenanceEntry] = (),
    notify: bool = False,
    payload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the object inside `ATP`, unsigned and without `timestamp`, which signing adds.

    `message_id` defaults to a new UUID, and so does the `request_id` of a request. `payload` holds
    further members of the payload, such as `error`, `part` and `final` of a response.
    """
    if request_id is None and message_type is MessageType.REQUEST:
        request_id = str(uuid.uuid4())
    members = {
        **(payload or {}),
        "messageType": str(message_type),
        "targetAgent": target,
        "requestId": request_id,
        "requiredCapabilities": list(required_capabilities) or None,
        "requiresTrust": None if requires_trust is None else str(requires_trust),
        "notify": notify or None,
    }
    members = {name: value for name, value in members.items() if value is not None}
    document = {
        "version": VERSION,
        "messageId": message_id or new_message_id(),
        "agentIdentity": identity.to_wire(),
        "trustLevel": None if trust_level is None else str(trust_level),
        "policyContext": policy_context.to_wire() if policy_context else None,
        "provenance": [entry.to_wire() for entry in provenance] or None,
        "payload": {**members, "data": data},
    }
    return {name: value for name, value in document.items() if value is not None}


def sign_envelope(
    document: Mapping[str, Any],
    key: PrivateKey,
    *,
    hub_id: str,
    now: float,
    lifetime_seconds: int,
    req: str | None = None,
    cause: str | None = None,
    trace: str | None = None,
    on_behalf_of: str | None = None,
) -> bytes:
    """Return the signed envelope of `signed_envelope` in RFC 8785 form, for the wire."""
    return signed_envelope(
        document,
        key,
        hub_id=hub_id,
        now=now,
        lifetime_seconds=lifetime_seconds,
        req=req,
        cause=cause,
        trace=trace,
        on_behalf_of=on_behalf_of,
    ).canonical


def signed_envelope(
    document: Mapping[str, Any],
    key: PrivateKey,
    *,
    hub_id: str,
    now: float,
    lifetime_seconds: int,
    req: str | None = None,
    cause: str | None = None,
    trace: str | None = None,
    on_behalf_of: str | None = None,
) -> Envelope:
    """Return the signed envelope. Its `document` shares the data with the given one.

    `timestamp` becomes `now` (seconds since 1970), and `payload.salt` is added if it is missing.
    Raises the error with which a reader would refuse the envelope, so the author sees the fault.
    """
    stamped = _stamped(document, now)
    envelope = _envelope({"ATP": stamped}, plain=inspect_document(stamped), canonical=b"")
    claims = signing_claims(
        envelope,
        hub_id=hub_id,
        now=now,
        lifetime_seconds=lifetime_seconds,
        req=req,
        cause=cause,
        trace=trace,
        on_behalf_of=on_behalf_of,
    )
    verify_claims(envelope, claims, hub_id=hub_id)
    stamped["signature"] = signing.sign(claims, key, typ=TokenKind.MESSAGE.typ)
    canonical = serialize({"ATP": stamped}, plain=envelope.plain)
    check_size(canonical)
    if not envelope.plain:
        # RFC 8785 writes floats from 2^53 up as integers, which every reader refuses.
        try:
            parse_noted(canonical)
        except MalformedError as problem:
            raise locate_fault(problem, stamped) from None
    return replace(envelope, canonical=canonical)


def signing_claims(
    envelope: Envelope,
    *,
    hub_id: str,
    now: float,
    lifetime_seconds: int,
    req: str | None = None,
    cause: str | None = None,
    trace: str | None = None,
    on_behalf_of: str | None = None,
) -> dict[str, Any]:
    """Return the claims of a signature made at `now`, valid for `lifetime_seconds`."""
    claims = {
        "iss": envelope.sender,
        "aud": [hub_id, envelope.target],
        "jti": envelope.message_id,
        "iat": int(now),
        "exp": int(now) + lifetime_seconds,
        "digest": envelope.digest,
        "prov": provenance_claim(envelope.document.get("provenance", ())),
        "req": req,
        "cause": cause,
        "trace": trace,
        "onBehalfOf": on_behalf_of,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _envelope(value: Any, *, plain: bool, canonical: bytes | None) -> Envelope:
    if not isinstance(value, dict) or value.keys() != {"ATP"}:
        raise MalformedEnvelope("an envelope must be an object with the only member ATP")
    document = value["ATP"]
    check_document(document)
    signed = {name: item for name, item in document.items() if name not in UNSIGNED_MEMBERS}
    return Envelope(
        document=document,
        canonical=serialize(value, plain=plain) if canonical is None else canonical,
        digest=sha256_b64url(serialize(signed, plain=plain)),
        plain=plain,
        message_id=document["messageId"],
        sender=document["agentIdentity"]["id"],
        target=document["payload"]["targetAgent"],
        message_type=_MESSAGE_TYPES[document["payload"]["messageType"]],
    )


def _signature(envelope: Envelope) -> str:
    if not envelope.signature:
        raise SignatureMissing("the envelope is not signed")
    return envelope.signature


def _stamped(document: Mapping[str, Any], now: float) -> dict[str, Any]:
    stamped = {name: value for name, value in document.items() if name != "signature"}
    stamped["timestamp"] = format_timestamp(now)
    payload = stamped.get("payload")
    if isinstance(payload, dict) and "salt" not in payload:
        stamped["payload"] = {**payload, "salt": b64url(secrets.token_bytes(SALT_BYTES))}
    return stamped

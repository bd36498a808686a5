"""What a judgement reads of a verified envelope, as a value that an entry of the trail can give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atp.judging.policy import RecordedValue
from atp.trust.envelope import VerifiedEnvelope

__all__ = ["MessageFacts"]


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """Everything that a judgement reads of a verified envelope.

    `size` is in bytes of the canonical form. `issued_at` is in seconds since 1970. `req` and
    `cause` are as in `VerifiedEnvelope`. `payload` is what rules may read: the payload itself, or
    a `RecordedPayload`. `recorded` has the fields of rules of which an entry has only the hash.
    """

    kid: str
    issued_at: int
    req: str | None
    cause: str | None
    sender: str
    target: str
    message_type: str
    request_id: str | None
    sensitivity: str | None
    requires_trust: str | None
    required_capabilities: tuple[str, ...]
    allowed_tools: tuple[str, ...]
    max_lifespan_seconds: int | None
    size: int
    payload: Any
    recorded: Mapping[str, RecordedValue] = field(default_factory=dict)

    @classmethod
    def of(cls, verified: VerifiedEnvelope) -> MessageFacts:
        """Return what a judgement reads of this envelope."""
        envelope = verified.envelope
        return cls(
            kid=verified.kid,
            issued_at=verified.issued_at,
            req=verified.req,
            cause=verified.cause,
            sender=envelope.sender,
            target=envelope.target,
            message_type=envelope.message_type,
            request_id=envelope.request_id,
            sensitivity=envelope.sensitivity,
            requires_trust=envelope.requires_trust,
            required_capabilities=envelope.required_capabilities,
            allowed_tools=envelope.allowed_tools,
            max_lifespan_seconds=envelope.max_lifespan_seconds,
            size=len(envelope.canonical),
            payload=envelope.payload,
        )

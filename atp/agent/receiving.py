"""The checks of an agent on each delivery, over any transport.

See docs/protocol.md#digest-and-signature.

Address, digest and claims are always checked. The sender's signature is checked if its key is known
here. If not, the agent relies on the hub's check at acceptance, and `verified` is false. Dates are
judged at the time of the hub's acceptance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atp.errors import (
    KeyUnknown,
    SignatureAudience,
    SignatureHeader,
    SignatureMissing,
    excerpt,
)
from atp.trust.envelope import Envelope, envelope_from_value, signature_header, verify_claims
from atp.trust.keys import PublicKey
from atp.trust.signing import unverified_claims, verify
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS, TokenKind, check_times
from atp.types import BROADCAST_TARGET
from atp.wire.frames import Delivery
from atp.wire.timestamps import parse_timestamp

__all__ = ["DeliveryFacts", "KeyFinder", "Received", "Verifier", "read_claims", "trusted_keys"]

KeyFinder = Callable[[str], Sequence[PublicKey]]  # agent id -> its known keys, maybe none


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery that passed all checks. Times are in seconds since 1970.

    `verified` is whether the sender's signature was checked here. `req` is the digest of the
    request that a response answers. `cause` is the digest of the envelope that the sender was
    handling when it wrote this one, and `trace` the trace id that the sender gave.
    """

    delivery: Delivery
    envelope: Envelope
    accepted_at: float
    expires_at: float
    verified: bool
    req: str | None = None
    cause: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """What a handler may know about the delivery of its message.

    `attempt` is 1, plus the number of times that a handler of this agent has begun and failed.
    `redelivered` is whether officers sent a refused message again. Times are in seconds since 1970.
    """

    attempt: int
    redelivered: bool
    accepted_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Verifier:
    """A checker of the deliveries to `agent` from the hub `hub_id`.

    `allow_unsigned` accepts unsigned messages of senders without a known key. Only the in-memory
    transport sets it.
    """

    agent: str
    hub_id: str
    find_keys: KeyFinder
    allow_unsigned: bool = False

    def verify(self, delivery: Delivery, *, now: float) -> Received:
        """Check a delivery; raises the `ATPError` that names its fault."""
        envelope = envelope_from_value(delivery.value, plain=delivery.plain)
        if envelope.target not in (self.agent, BROADCAST_TARGET):
            raise SignatureAudience("it is addressed to another agent")
        said = delivery.accepted_at
        accepted_at = now if said is None else parse_timestamp(said)
        keys = self.find_keys(envelope.sender)
        if envelope.signature is None and self.allow_unsigned and not keys:
            expires_at = envelope.timestamp + MESSAGE_MAX_LIFE_SECONDS
            return Received(delivery, envelope, accepted_at, expires_at, verified=False)
        claims = self._claims(envelope, keys)
        check_times(TokenKind.MESSAGE, claims, now=accepted_at)
        return Received(
            delivery,
            envelope,
            accepted_at,
            claims["exp"],
            verified=bool(keys),
            req=claims.get("req"),
            cause=claims.get("cause"),
            trace=claims.get("trace"),
        )

    def _claims(self, envelope: Envelope, keys: Sequence[PublicKey]) -> Mapping[str, Any]:
        header = signature_header(envelope)
        if header.typ != TokenKind.MESSAGE.typ:
            raise SignatureHeader(
                f"the token is a {excerpt(header.typ)}, not a {TokenKind.MESSAGE.typ}"
            )
        assert envelope.signature is not None  # its header was just read
        if not keys:
            claims = read_claims(envelope)
        else:
            key = next((key for key in keys if key.kid == header.kid), None)
            if key is None:
                raise KeyUnknown(f"{envelope.sender} signed with a key that is not trusted here")
            claims = verify(envelope.signature, key, typ=header.typ)
        verify_claims(envelope, claims, hub_id=self.hub_id)
        return claims


def read_claims(envelope: Envelope) -> dict[str, Any]:
    """Return the unverified claims of the signature.

    Raises `SignatureMissing`, or a `MalformedError` if the token can't be read.
    """
    if not envelope.signature:
        raise SignatureMissing("the envelope is not signed")
    return unverified_claims(envelope.signature)


def trusted_keys(known: Mapping[str, PublicKey | Sequence[PublicKey]]) -> KeyFinder:
    """Return a finder for the keys that the caller trusts: agent id -> one key or several."""
    table = {
        agent: (keys,) if isinstance(keys, PublicKey) else tuple(keys)
        for agent, keys in known.items()
    }
    return lambda agent: table.get(agent, ())

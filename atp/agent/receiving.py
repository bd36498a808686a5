"""What an agent checks of each delivery, over any transport.

See docs/protocol.md#digest-and-signature.

Address, digest and claims are checked always. The sender's signature is checked where its key is
known here; where it is not, the hub's check at acceptance is what there is, and `verified` says so.
Dates are judged as of the hub's acceptance.
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

__all__ = ["KeyFinder", "Received", "Verifier", "read_claims", "trusted_keys"]

KeyFinder = Callable[[str], Sequence[PublicKey]]  # the keys known of an agent; empty: none


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery that passed; times in seconds since 1970.

    `verified` is whether the sender's signature was checked here. `req` is the digest of the
    request that a response answers, `cause` that of what its sender was handling.
    """

    delivery: Delivery
    envelope: Envelope
    accepted_at: float
    expires_at: float
    verified: bool
    req: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges what is delivered to `agent` by the hub `hub_id`.

    `allow_unsigned` is for transports within the process, and for senders without a known key.
    """

    agent: str
    hub_id: str
    find_keys: KeyFinder
    allow_unsigned: bool = False

    def verify(self, delivery: Delivery, *, now: float) -> Received:
        """The delivery as received; raises an `ATPError` naming what is wrong with it."""
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
        )

    def _claims(self, envelope: Envelope, keys: Sequence[PublicKey]) -> Mapping[str, Any]:
        header = signature_header(envelope)
        if header.typ != TokenKind.MESSAGE.typ:
            raise SignatureHeader(f"the token is a {excerpt(header.typ)}")
        assert envelope.signature is not None  # its header was just read
        if not keys:
            claims = read_claims(envelope)
        else:
            key = next((key for key in keys if key.kid == header.kid), None)
            if key is None:
                raise KeyUnknown(f"{envelope.sender} signed with a key other than the known ones")
            claims = verify(envelope.signature, key, typ=header.typ)
        verify_claims(envelope, claims, hub_id=self.hub_id)
        return claims


def read_claims(envelope: Envelope) -> dict[str, Any]:
    """The claims of the signature, unproven; raises a `MalformedError` or `SignatureMissing`."""
    if not envelope.signature:
        raise SignatureMissing("the envelope is not signed")
    return unverified_claims(envelope.signature)


def trusted_keys(known: Mapping[str, PublicKey | Sequence[PublicKey]]) -> KeyFinder:
    """A finder over keys that the caller trusts: agent id -> its key, or several of them."""
    table = {
        agent: (keys,) if isinstance(keys, PublicKey) else tuple(keys)
        for agent, keys in known.items()
    }
    return lambda agent: table.get(agent, ())

"""The signature check of the in-process hub: that of a hub, and the additions of demo mode.

Real keys are verified by `judgement.verify`, with the same answers as a hub's. All additions of
demo mode are here (docs/sdk.md#demo-mode):

- Every string key has the key id `demo`. It stands for the key with which the sender connected or
  signed. Provenance entries that name this key id count as the sender's own.
- An unsigned message is accepted from an agent without a key. Its `timestamp` is not checked: the
  message counts as signed now and valid for a day. It has no cause. If it is a response, it answers
  the open request with its `requestId`.
"""

from __future__ import annotations

from collections.abc import Callable

from atp.errors import IdentityMismatch, SignatureMissing
from atp.judging import judgement
from atp.judging.facts import KeyFacts
from atp.memory.keys import DEMO_KID, DIRECTORY
from atp.trust.envelope import Envelope, VerifiedEnvelope, signature_header
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS
from atp.types import MessageType

__all__ = ["UNSIGNED_KID", "is_demo", "verify"]

UNSIGNED_KID = ""  # the key id of a message that no key signed

FindRequest = Callable[[Envelope], str | None]


def verify(
    envelope: Envelope, *, session_agent: str, hub_id: str, now: float, find_request: FindRequest
) -> VerifiedEnvelope:
    """Verify that `session_agent` sent the envelope; `now` is in seconds since 1970.

    `find_request` returns the digest of the open request that an unsigned response answers. Raises
    the errors of `judgement.verify`, and `SignatureMissing` if an agent with a key did not sign.
    """
    if envelope.signature is None:
        return _verify_unsigned(envelope, session_agent, now, find_request)

    def find_key(kid: str) -> KeyFacts | None:
        return _key_facts(kid, session_agent)

    return judgement.verify(
        envelope,
        find_key(signature_header(envelope).kid),
        session_agent=session_agent,
        hub_id=hub_id,
        now=now,
        find_key=find_key,
    )


def is_demo(verified: VerifiedEnvelope) -> bool:
    """Return whether the envelope is unsigned, or signed with a string key."""
    return verified.kid in {UNSIGNED_KID, DEMO_KID}


def _verify_unsigned(
    envelope: Envelope, session_agent: str, now: float, find_request: FindRequest
) -> VerifiedEnvelope:
    if envelope.sender != session_agent:
        raise IdentityMismatch("agentIdentity.id is not the agent of this session")
    if DIRECTORY.find(session_agent) is not None:
        raise SignatureMissing("this agent has a key, so it must sign its messages")
    answers = envelope.message_type is MessageType.RESPONSE
    return VerifiedEnvelope(
        envelope=envelope,
        kid=UNSIGNED_KID,
        issued_at=int(now),
        expires_at=int(now) + MESSAGE_MAX_LIFE_SECONDS,
        req=find_request(envelope) if answers else None,
        cause=None,
    )


def _key_facts(kid: str, session_agent: str) -> KeyFacts | None:
    own = DIRECTORY.find(session_agent)
    if own is not None and own.kid == kid:
        return KeyFacts(session_agent, "active", own)
    owner = DIRECTORY.owner(kid)
    key = None if owner is None else DIRECTORY.find(owner)
    return None if owner is None or key is None else KeyFacts(owner, "active", key)

"""What the in-memory transport decides about a message, without any I/O.

It is no hub: nothing is stored, there are no policies, and an agent's word for its attestation is
believed. What it does refuse, it refuses with the codes of a hub (protocol.md, "Demo mode").
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from atp.errors import (
    AttestationCapability,
    IdentityMismatch,
    KeyUnknown,
    RecipientNoRequest,
    RecipientSelf,
    RecipientUnavailable,
    ReplayConflict,
    SignatureMissing,
    TrustLevelTooLow,
)
from atp.memory.keys import DEMO_HUB_ID, DIRECTORY
from atp.memory.trust import believed_level, believed_score
from atp.trust.envelope import Envelope, signature_header, verify_envelope
from atp.types import BROADCAST_TARGET, IAgentIdentity, MessageType, TrustLevel

__all__ = ["Accepted", "DemoHub", "Member"]

REMEMBERED: Final = 10_000  # messages and open requests; a demo in one process
GOOD_PER_PAIR: Final = 10  # trust.md "The score": envelopes that count, per counterparty and day

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that may be delivered: what is said of its sender, and to whom it goes."""

    score: int
    level: TrustLevel | None
    recipients: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A connected agent; `deliver` takes what is for it. A bare queue has no identity."""

    agent: str
    deliver: Callable[[Envelope, Accepted], None]
    identity: IAgentIdentity | None = None
    trust_level: TrustLevel | None = None


class DemoHub:
    """The agents of one process, and what was said between them lately."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._seen: OrderedDict[tuple[str, str], tuple[str, Accepted]] = OrderedDict()
        self._requests: OrderedDict[tuple[str, str, str | None], str] = OrderedDict()
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._good: Counter[str] = Counter()
        self._signed: Counter[tuple[str, bool]] = Counter()

    def known(self, sender: str, envelope: Envelope) -> Accepted | None:
        """What was decided of the same message before; raises where only the id is the same."""
        digest, accepted = self._seen.get((sender, envelope.message_id), ("", None))
        if accepted is not None and digest != envelope.digest:
            raise ReplayConflict("this messageId was used for something else")
        return accepted

    def judge(
        self, sender: str, envelope: Envelope, *, now: float, only: str | None = None
    ) -> Accepted:
        """Decide on a message that `sender` handed in; raises the reason why not.

        `only` narrows a broadcast to one agent.
        """
        if envelope.sender != sender:
            raise IdentityMismatch("agentIdentity.id is not the agent that sends it")
        claims_req = self._check_signature(envelope, now)
        recipients = self._recipients(sender, only or envelope.target)
        if envelope.message_type is MessageType.RESPONSE:
            self._check_response(envelope, claims_req)
        identity, claimed = self._claims_of(envelope)
        level = believed_level(identity, claimed, now=now)
        for recipient in recipients:
            _check_demands(envelope, recipient, now)
        accepted = Accepted(self.score_of(envelope, now=now), level, recipients)
        self._note(envelope, accepted)
        return accepted

    def score_of(self, envelope: Envelope, *, now: float) -> int:
        """The sender's score by its own word and its conduct here."""
        identity, claimed = self._claims_of(envelope)
        return self.score_of_agent(
            identity,
            claimed,
            now=now,
            key_algorithm=signature_header(envelope).alg if envelope.signature else None,
        )

    def score_of_agent(
        self,
        identity: IAgentIdentity,
        claimed: TrustLevel | None,
        *,
        now: float,
        key_algorithm: str | None,
    ) -> int:
        """The score of an agent by its own word and its conduct here."""
        good, bad = self._signed[identity.id, True], self._signed[identity.id, False]
        return believed_score(
            identity,
            claimed,
            now=now,
            key_algorithm=key_algorithm,
            signatures=(good, good + bad) if good + bad else (1, 1),
            good_envelopes=self._good[identity.id],
        )

    def _claims_of(self, envelope: Envelope) -> tuple[IAgentIdentity, TrustLevel | None]:
        member = self.members.get(envelope.sender)
        if member is not None and member.identity is not None:
            return member.identity, member.trust_level
        identity = IAgentIdentity.from_wire(envelope.document["agentIdentity"])
        return identity, envelope.claimed_level

    def _check_signature(self, envelope: Envelope, now: float) -> str | None:
        """The claim `req` of a signed message; unsigned ones are for agents without a key."""
        key = DIRECTORY.find(envelope.sender)
        if envelope.signature is None:
            if key is not None:
                raise SignatureMissing("this agent has a key, so its messages are signed")
            return None
        if key is None:
            raise KeyUnknown("no key of the sender is known in this process")
        verified = False
        try:
            claims = verify_envelope(envelope, key, hub_id=DEMO_HUB_ID, now=now)
            verified = True
        finally:
            self._signed[envelope.sender, verified] += 1
        return claims.req

    def _recipients(self, sender: str, target: str) -> tuple[Member, ...]:
        if target == BROADCAST_TARGET:
            return tuple(m for agent, m in self.members.items() if agent != sender)
        if target == sender:
            raise RecipientSelf("an agent can't send to itself")
        member = self.members.get(target)
        if member is None:
            raise RecipientUnavailable(
                f"no agent {target!r} is connected in this process. The in-memory"
                " transport reaches only agents of the same process: create a second ATPClient"
                " with that id, give it on_message('request', ...) and connect() it first; for"
                " agents elsewhere, use a WebSocketTransport"
            )
        return (member,)

    def _check_response(self, envelope: Envelope, req: str | None) -> None:
        request = (envelope.target, envelope.sender, envelope.request_id)
        digest = self._requests.get(request)
        if digest is None or (req is not None and req != digest):
            raise RecipientNoRequest("no such request waits for an answer")
        del self._requests[request]

    def _note(self, envelope: Envelope, accepted: Accepted) -> None:
        sender = envelope.sender
        _put(self._seen, (sender, envelope.message_id), (envelope.digest, accepted))
        if envelope.message_type is MessageType.REQUEST:
            request = (sender, envelope.target, envelope.request_id)
            _put(self._requests, request, envelope.digest)
        for recipient in accepted.recipients:
            self._pairs[sender, recipient.agent] += 1
            self._good[sender] += self._pairs[sender, recipient.agent] <= GOOD_PER_PAIR


def _check_demands(envelope: Envelope, recipient: Member, now: float) -> None:
    demanded, required = envelope.requires_trust, set(envelope.required_capabilities)
    if demanded is None and not required:
        return
    identity = recipient.identity or IAgentIdentity(recipient.agent)
    level = believed_level(identity, recipient.trust_level, now=now)
    if demanded is not None and (level is None or level < demanded):
        raise TrustLevelTooLow(f"{recipient.agent} is not {demanded}")
    if required and (level is None or not required <= set(identity.capabilities)):
        raise AttestationCapability(f"{recipient.agent} does not have what is required")


def _put(table: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    table[key] = value
    if len(table) > REMEMBERED:
        table.popitem(last=False)

"""The judge of the in-process hub: it checks for repeats, verifies, judges and remembers.

It keeps in memory what a hub keeps in its database, and calls `judgement` for every decision. The
in-memory transport and the fake hub of the SDK's tests use it. It differs from a hub in its
`Registry`, and in its policies, which allow everything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Protocol, TypeVar

from atp.errors import ATPError, ClockExpired, ReplayConflict
from atp.judging import judgement, scoring
from atp.judging.facts import (
    AgentFacts,
    AttestationFacts,
    CauseFacts,
    Chain,
    Facts,
    RecipientFacts,
    RequestFacts,
)
from atp.judging.judgement import Verdict
from atp.judging.policy import PolicySet, compile_policies
from atp.trust.envelope import Envelope, VerifiedEnvelope
from atp.types import BROADCAST_TARGET, MessageType
from atp.wire.frames import Receipt

__all__ = ["FINAL", "Judge", "Party", "Registry", "Ruling"]

REMEMBERED: Final = 10_000  # envelopes, and the same number of requests and of causes
FINAL: Final = frozenset({"accepted", "denied"})  # a repeat gets these again, as from a hub
RETRY_AFTER_SECONDS: Final = 1.0  # for a sender whose recipient is full; the same as a hub's

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Party:
    """The facts of a registry about the sender or the recipient of a message."""

    agent: AgentFacts
    attestations: tuple[AttestationFacts, ...]
    inputs: scoring.ScoreInputs


class Registry(Protocol):
    """The source of a `Judge`'s facts. Times are in seconds since 1970."""

    def verify(self, envelope: Envelope, *, session_agent: str, now: float) -> VerifiedEnvelope:
        """Verify that `session_agent` sent the envelope; raises an `ATPError` if not."""

    def sender(self, verified: VerifiedEnvelope, *, now: float) -> Party | None:
        """Return the facts about the sender."""

    def recipient(self, agent: str, *, now: float) -> Party | None:
        """Return the facts about the recipient, or `None` if it can't be reached."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The verdict on an envelope, with the agents that get it.

    `connected` is whether the recipient of an accepted request is connected; else `None`.
    """

    verdict: Verdict
    recipients: tuple[str, ...] = ()
    digest: str = ""
    req: str | None = None
    connected: bool | None = None
    first_status: str = ""  # in a conflict: of the envelope that had the messageId first

    def to_receipt(self, message_id: str, *, entry: int | None = None) -> Receipt:
        """Return the receipt for the sender.

        `entry` is the index in the trail, if any; in a conflict, that of the first envelope.
        """
        verdict, is_final = self.verdict, self.verdict.status in FINAL
        return Receipt(
            message_id,
            verdict.status,
            code=verdict.code,
            detail=verdict.detail,
            trust_score=verdict.score if is_final else None,
            recipients=len(self.recipients) if is_final else None,
            entry=None if self.first_status else entry,
            retry_after=verdict.retry_after,
            connected=self.connected,
            first_status=self.first_status,
            first_entry=entry if self.first_status else None,
        )


class Judge:
    """A judge of envelopes, one at a time, that remembers the latest rulings."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rulings: OrderedDict[tuple[str, str], Ruling] = OrderedDict()
        self._requests: OrderedDict[str, RequestFacts] = OrderedDict()
        self._asked: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self._chains: OrderedDict[str, tuple[frozenset[str], Chain]] = OrderedDict()

    def find_repeat(self, session_agent: str, envelope: Envelope) -> Ruling | None:
        """Return the earlier ruling on this envelope, or `None`.

        If an envelope with other content has the same id, return a ruling of `replay.conflict`.
        """
        earlier = self._rulings.get((session_agent, envelope.message_id))
        if earlier is None or earlier.digest == envelope.digest:
            return earlier
        problem = ReplayConflict("this messageId was used for another envelope")
        return Ruling(_unusable(problem), first_status=earlier.verdict.status)

    def rule(
        self,
        session_agent: str,
        envelope: Envelope,
        *,
        audience: Sequence[str],
        now: float,
        full: Collection[str] = (),
    ) -> Ruling:
        """Judge the envelope that `session_agent` sent at `now` (seconds since 1970).

        The ruling is remembered. `audience` are the agents that get the envelope if it is accepted;
        of a broadcast, those of them that fit. `full` are the agents without room for it. Call
        `find_repeat` first.
        """
        try:
            verified = self._registry.verify(envelope, session_agent=session_agent, now=now)
        except ATPError as problem:
            return Ruling(_unusable(problem))
        facts = self._facts(verified, audience, now=now, full=full)
        verdict = judgement.judge(verified, facts)
        if verdict.status == "busy":
            verdict = replace(verdict, retry_after=RETRY_AFTER_SECONDS)
        reached = verdict.hearers if facts.audience else tuple(audience)
        recipients = reached if verdict.accepted else ()
        ruling = Ruling(verdict, recipients, envelope.digest, verified.req)
        if verdict.status in FINAL:
            _put(self._rulings, (session_agent, envelope.message_id), ruling)
        if verdict.accepted:
            self._note_accepted(verified, ruling)
        return ruling

    def withdraw(self, session_agent: str, envelope: Envelope) -> None:
        """Forget that an envelope was accepted, because its delivery failed."""
        ruling = self._rulings.pop((session_agent, envelope.message_id), None)
        self._requests.pop(envelope.digest, None)
        self._chains.pop(envelope.digest, None)
        if ruling is not None and ruling.req is not None:
            self._mark_answered(ruling.req, answered=False)

    def find_request(self, response: Envelope) -> str | None:
        """Return the digest of the latest request with the `requestId` of a response, or `None`."""
        return self._asked.get((response.target, response.sender, response.request_id or ""))

    def open_request(self, sender: str, message_id: str, *, now: float) -> RequestFacts | None:
        """Return an accepted request of `sender` that has no answer yet, or `None`."""
        ruling = self._rulings.get((sender, message_id))
        request = self._requests.get(ruling.digest) if ruling is not None else None
        if request is None or request.answered or request.expires_at <= now:
            return None
        return request

    def _facts(
        self,
        verified: VerifiedEnvelope,
        audience: Sequence[str],
        *,
        now: float,
        full: Collection[str],
    ) -> Facts:
        sender = self._registry.sender(verified, now=now)
        recipient = self._registry.recipient(verified.envelope.target, now=now)
        return Facts(
            now=now,
            sender=sender.agent if sender else None,
            attestations=sender.attestations if sender else (),
            inputs=sender.inputs if sender else scoring.ScoreInputs(),
            policy_set=_allow_everything(),
            recipient=recipient.agent if recipient else None,
            recipient_attestations=recipient.attestations if recipient else (),
            recipient_inputs=recipient.inputs if recipient else None,
            recipient_full=verified.envelope.target in full,
            audience=self._audience(verified, audience, now=now, full=full),
            request=self._requests.get(verified.req or ""),
            cause=self._cause(verified),
        )

    def _audience(
        self,
        verified: VerifiedEnvelope,
        audience: Sequence[str],
        *,
        now: float,
        full: Collection[str],
    ) -> list[RecipientFacts]:
        """Return the facts about each connected agent that may hear a broadcast."""
        if verified.envelope.target != BROADCAST_TARGET:
            return []
        known = ((agent, self._registry.recipient(agent, now=now)) for agent in audience)
        return [
            RecipientFacts(party.agent, party.attestations, party.inputs, agent in full)
            for agent, party in known
            if party is not None
        ]

    def _cause(self, verified: VerifiedEnvelope) -> CauseFacts | None:
        known = self._chains.get(verified.cause or "")
        if known is None:
            return None
        recipients, chain = known
        return CauseFacts(verified.envelope.sender in recipients, chain)

    def _note_accepted(self, verified: VerifiedEnvelope, ruling: Ruling) -> None:
        envelope, verdict = verified.envelope, ruling.verdict
        if verified.req is not None:
            self._mark_answered(verified.req, answered=True)
        if verdict.chain is not None:
            heard = frozenset(ruling.recipients)
            _put(self._chains, envelope.digest, (heard, verdict.chain))
        if envelope.message_type is MessageType.REQUEST:
            request = _as_request(verified, verdict)
            _put(self._requests, envelope.digest, request)
            _put(self._asked, (request.sender, request.target, request.request_id), envelope.digest)

    def _mark_answered(self, digest: str, *, answered: bool) -> None:
        request = self._requests.get(digest)
        if request is not None:
            self._requests[digest] = replace(request, answered=answered)


@cache
def _allow_everything() -> PolicySet:
    rule = {"name": "Everything is allowed", "action": "allow", "always": True}
    return compile_policies([{"name": "In-process hub", "rules": [rule]}])


def _as_request(verified: VerifiedEnvelope, verdict: Verdict) -> RequestFacts:
    envelope = verified.envelope
    return RequestFacts(
        sender=envelope.sender,
        target=envelope.target,
        request_id=envelope.request_id or "",
        expires_at=verified.expires_at,
        sensitivity=verdict.sensitivity,
        requires_trust=envelope.requires_trust or "",
        answered=False,
    )


def _unusable(problem: ATPError) -> Verdict:
    status = "expired" if isinstance(problem, ClockExpired) else "invalid"
    return Verdict(status, problem.code, problem.detail)


def _put(table: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    table[key] = value
    if len(table) > REMEMBERED:
        table.popitem(last=False)

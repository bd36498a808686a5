"""The entry about a verdict: what the sender signed, and what the verdict was made of.

Entries are never deleted, and an agent chooses what it sends, so denied envelopes could fill the
trail. Of each large part of a denied envelope, the entry has only number, size and digest, in
`notKept`. With a copy of the part, the digest can be checked; without a copy, it can't.
"""

from __future__ import annotations

from typing import Any

from atp.judging.recording import cut_list
from atp.trust.provenance import chain_head
from messaging.judging.facts import DENIED_KEPT_BYTES, BatchFacts
from messaging.judging.item import Decided
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

__all__ = ["entry_of_verdict"]


def entry_of_verdict(
    one: Decided, facts: BatchFacts, place: tuple[str, int] | None = None
) -> EntryDraft:
    """Return the entry about an envelope that was accepted or denied.

    `place` is the stream and the sequence number of its delivery; a broadcast has none yet.
    """
    envelope, verdict, verified, record = one.envelope, one.verdict, one.verified, one.record
    assert record is not None  # every verdict that leaves an entry was judged
    decision = verdict.decision
    own, other = (_organisation(agent, facts) for agent in (one.frame.agent, envelope.target))
    return EntryDraft(
        kind=Kind.ENVELOPE_ACCEPTED if verdict.accepted else Kind.ENVELOPE_DENIED,
        actor=f"agent:{one.frame.agent}",
        cause=facts.cause_of(verified),
        sender=one.frame.agent,
        recipient=envelope.target,
        message_id=envelope.message_id,
        session=one.frame.session,
        request_id=envelope.request_id or "",
        on_behalf_of=verified.on_behalf_of or "",
        trace=verified.trace or "",
        sensitivity=verdict.sensitivity,
        verdict=verdict.status,
        policy=decision.policy if decision else "",
        rule=verdict.rule,
        issuer=verdict.issuer,
        attestation=verdict.attestation,
        score=verdict.score,
        sender_organisation=own,
        recipient_organisation=other,
        organisations=tuple(filter(None, (own, other))),
        shared=_shared(one, record.shared),
        for_sender=record.for_sender,
        for_recipient=_for_recipient(record.for_recipient, place),
    )


def _organisation(agent_id: str, facts: BatchFacts) -> str:
    agent = facts.view.agent(agent_id)
    return agent.organisation_uid if agent else ""


def _shared(one: Decided, record: dict[str, Any]) -> dict[str, Any]:
    shared = {"jws": one.envelope.signature, **record}
    if one.envelope.claimed_level is not None:
        shared["claimedLevel"] = one.envelope.claimed_level
    if provenance := one.envelope.provenance:
        cut = None if one.verdict.accepted else cut_list(provenance, DENIED_KEPT_BYTES)
        if cut is None:
            shared["provenance"] = provenance
        else:
            cut["head"] = chain_head(provenance)
            shared["notKept"] = {**shared.get("notKept", {}), "provenance": cut}
    return shared


def _for_recipient(record: dict[str, Any], place: tuple[str, int] | None) -> dict[str, Any]:
    if place is None:
        return record
    stream, seq = place
    return {**record, "stream": stream, "seq": seq}

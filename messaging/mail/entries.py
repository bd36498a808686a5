"""The entries about deliveries: given a place, acknowledged, refused, ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from messaging.models import Delivery, Envelope
from registry.agents.querysets import organisations_of
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind
from registry.trail.querysets import causes_among

__all__ = ["DeliveryEntries"]

Places = Sequence[tuple[str, int]]  # agent and sequence number


@dataclass(frozen=True, slots=True)
class DeliveryEntries:
    """Makes entries about deliveries of some envelopes; it has read what they name.

    `causes` are the entries of the verdicts by (sender, messageId), `uids` those of organisations
    by agent.
    """

    causes: Mapping[tuple[str, str], int]
    uids: Mapping[str, str]

    @classmethod
    def about(cls, envelopes: Iterable[Envelope], agents: Iterable[str]) -> DeliveryEntries:
        """Read what the entries about these envelopes and their recipients name; two queries."""
        some = list(envelopes)
        senders = {one.sender_id for one in some}
        return cls(
            causes_among({one.message_id for one in some}),
            organisations_of(senders | set(agents)),
        )

    @classmethod
    def about_rows(cls, rows: Sequence[Delivery]) -> DeliveryEntries:
        """Read what the entries about these deliveries name; `envelope` must be loaded."""
        return cls.about((row.envelope for row in rows), (row.recipient_id for row in rows))

    def entry(
        self,
        kind: Kind,
        row: Delivery,
        *,
        shared: Mapping[str, Any],
        place: Mapping[str, Any] | None = None,
        actor: str = "hub",
    ) -> EntryDraft:
        """Return the entry about a delivery. `place` is what only the recipient may see."""
        return self._draft(
            kind,
            row.envelope,
            row.recipient_id,
            actor=actor,
            verdict=kind.value.partition(".")[2],
            shared=shared,
            for_recipient=place or {"stream": row.stream, "seq": row.seq},
        )

    def placed(
        self, envelope: Envelope, stream: str, places: Places, *, notice: str = ""
    ) -> EntryDraft:
        """Return the entry that an envelope, or a `notice` about it, has places in streams."""
        only = places[0][0] if len(places) == 1 else "*"
        return self._draft(
            Kind.DELIVERY_PLACED,
            envelope,
            only,
            actor="hub",
            shared={"notice": notice} if notice else {},
            for_recipient={"stream": stream, "places": [list(place) for place in places]},
            organisations={self.uids.get(agent, "") for agent, _ in places},
        )

    def _draft(
        self,
        kind: Kind,
        envelope: Envelope,
        recipient: str,
        *,
        organisations: Iterable[str] = (),
        **members: Any,
    ) -> EntryDraft:
        own, other = self.uids.get(envelope.sender_id, ""), self.uids.get(recipient, "")
        concerned = {own, other, *organisations} - {""}
        return EntryDraft(
            kind=kind,
            cause=self.causes.get((envelope.sender_id, envelope.message_id)),
            sender=envelope.sender_id,
            recipient=recipient,
            message_id=envelope.message_id,
            request_id=envelope.request_id,
            sensitivity=envelope.sensitivity,
            sender_organisation=own,
            recipient_organisation=other,
            organisations=tuple(concerned),
            **members,
        )

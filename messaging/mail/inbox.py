"""Reading a stream from the database: what offline agents, gaps and full windows come back for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import QuerySet

from atp.errors import IdentityRevoked, KeyRevoked
from atp.wire import frames
from atp.wire.members import stream_named
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.withhold import expire_waiting, hold, withhold
from messaging.models import Delivery, Mailbox
from registry.models import Agent, AgentKey
from registry.trail.querysets import entries_of_messages

PAGE_BYTES = 1_048_576  # a message to an agent (docs/protocol.md#frames)
FRAME_BYTES = 512  # around an envelope, at most


@dataclass(frozen=True, slots=True)
class Page:
    """Frames of one stream with the sequence numbers from `first` to `last`, without a gap."""

    first: int
    last: int
    text: str


def read_page(agent: str, stream: str, *, after: int, most: int) -> Page | None:
    """At most `most` deliveries behind the sequence number `after`; `None` where there are none.

    Dates and the senders' standing are looked at once more: what expired is told as gone, what a
    revoked or suspended sender left is withheld, with an entry.
    """
    stream_of_agent = Delivery.objects.filter(recipient_id=agent, stream=stream, seq__gt=after)
    last = _end_of_page(stream_of_agent.filter(seq__lte=after + most))
    if last is None:
        return None
    rows = list(stream_of_agent.filter(seq__lte=last).select_related("envelope").order_by("seq"))
    _withhold(rows)
    _expire_late(rows, datetime.now(UTC))
    entries = entries_of_messages({row.envelope.message_id for row in rows})
    parts = [_frame(row, entries) for row in rows]
    return Page(rows[0].seq, rows[-1].seq, frames.join_frames(parts).decode())


def last_seqs(agents: Collection[str]) -> dict[tuple[str, str], int]:
    """The last sequence number of each stream of these agents."""
    rows = Mailbox.objects.filter(agent_id__in=agents)
    return {(a, s): last for a, s, last in rows.values_list("agent_id", "stream", "last_seq")}


def _end_of_page(deliveries: QuerySet[Delivery]) -> int | None:
    """The last sequence number that fits into a page; reads sizes only: contents may be large."""
    last, size = None, 0
    for seq, envelope in deliveries.order_by("seq").values_list("seq", "envelope__size"):
        size += envelope + FRAME_BYTES
        if last is not None and size > PAGE_BYTES:
            break
        last = seq
    return last


def _withhold(rows: Sequence[Delivery]) -> None:
    """Withhold, in rows and in the trail, what waits from senders and keys without standing.

    For good where they are revoked; of who is suspended, until officers have decided.
    """
    waiting = [row for row in rows if row.state == Delivery.State.WAITING]
    inactive = dict(
        Agent.objects.filter(id__in={row.sender for row in waiting})
        .exclude(status=Agent.Status.ACTIVE)
        .values_list("id", "status")
    )
    gone = {agent for agent, status in inactive.items() if status == Agent.Status.REVOKED}
    kids = {row.envelope.kid for row in waiting if row.sender not in gone}
    revoked = set(
        AgentKey.objects.filter(kid__in=kids, status=AgentKey.Status.REVOKED).values_list(
            "kid", flat=True
        )
    )
    if affected := [row for row in waiting if row.sender in gone]:
        withhold(affected, IdentityRevoked.code)
    if affected := [row for row in waiting if row.envelope.kid in revoked]:
        withhold(affected, KeyRevoked.code)
    left = [row for row in waiting if row.state == Delivery.State.WAITING]
    if affected := [row for row in left if row.sender in inactive]:
        hold(affected)


def _expire_late(rows: Sequence[Delivery], now: datetime) -> None:
    """Mark what ran out: told as gone and acknowledged as that, it is nothing that was received."""
    late = [r for r in rows if r.state == Delivery.State.WAITING and r.expires_at <= now]
    if late:
        expire_waiting(late)


def _frame(row: Delivery, entries: dict[tuple[str, str], int]) -> bytes:
    if row.state in (Delivery.State.WITHHELD, Delivery.State.HELD):
        return frames.Withheld(stream_named(row.stream), row.seq, row.code).to_bytes()
    if row.state == Delivery.State.EXPIRED:
        return frames.Gone(stream_named(row.stream), row.seq, row.seq, row.code).to_bytes()
    entry = entries.get((row.sender, row.envelope.message_id))
    return stored_delivery(row.envelope, stream=row.stream, seq=row.seq, entry=entry)

"""Read the deliveries of a stream from the database.

A node reads the deliveries that it could not push: after a login, after a gap, beyond the window.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import QuerySet

from atp.errors import IdentityRevoked, KeyRevoked
from atp.types import BROADCAST_TARGET
from atp.wire import frames
from atp.wire.members import stream_named
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.withhold import expire_waiting, hold, withhold
from messaging.models import Delivery, Mailbox
from registry.models import Agent, AgentKey
from registry.trail.querysets import entries_of_messages

PAGE_BYTES = 1_048_576  # of one message to an agent (docs/protocol.md#frames)
NOTICE_UNSUPPORTED = "notice.unsupported"  # the session's client can't read notices
FRAME_BYTES = 512  # the most that a delivery frame adds to its envelope


@dataclass(frozen=True, slots=True)
class Page:
    """The frames of one stream from sequence number `first` to `last`, without a gap."""

    first: int
    last: int
    text: str


def read_page(
    agent: str, stream: str, *, after: int, most: int, notices: bool = False
) -> Page | None:
    """Return at most `most` deliveries after the sequence number `after`; `None` if there are none.

    Check expiry and senders once more. An expired delivery becomes a `gone` frame. A delivery of
    a revoked or suspended sender becomes a `withheld` frame. Both write an entry to the trail.
    `notices` is whether the session knows notices with a place; another one gets `gone` there.
    """
    stream_of_agent = Delivery.objects.filter(recipient_id=agent, stream=stream, seq__gt=after)
    last = _end_of_page(stream_of_agent.filter(seq__lte=after + most))
    if last is None:
        return None
    rows = list(stream_of_agent.filter(seq__lte=last).select_related("envelope").order_by("seq"))
    _withhold(rows)
    _expire_late(rows, datetime.now(UTC))
    entries = entries_of_messages({row.envelope.message_id for row in rows})
    parts = [_frame(row, entries, notices=notices) for row in rows]
    return Page(rows[0].seq, rows[-1].seq, frames.join_frames(parts).decode())


def last_sequence_numbers(agents: Collection[str]) -> dict[tuple[str, str], int]:
    """Return the last sequence number of each (agent, stream) of these agents."""
    rows = Mailbox.objects.filter(agent_id__in=agents)
    return {(a, s): last for a, s, last in rows.values_list("agent_id", "stream", "last_seq")}


def _end_of_page(deliveries: QuerySet[Delivery]) -> int | None:
    """Return the last sequence number that fits into a page, from the sizes alone.

    The contents are not read: they may be large.
    """
    last, size = None, 0
    for seq, envelope in deliveries.order_by("seq").values_list("seq", "envelope__size"):
        size += envelope + FRAME_BYTES
        if last is not None and size > PAGE_BYTES:
            break
        last = seq
    return last


def _withhold(rows: Sequence[Delivery]) -> None:
    """Withhold waiting deliveries of inactive senders and revoked keys, in rows and trail.

    Deliveries of revoked senders and keys are withheld for good. Deliveries of suspended senders
    are held until officers decide.
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
    """Mark expired deliveries: the agent acknowledges a `gone` frame, but received no mail."""
    late = [r for r in rows if r.state == Delivery.State.WAITING and r.expires_at <= now]
    if late:
        expire_waiting(late)


def _frame(row: Delivery, entries: dict[tuple[str, str], int], *, notices: bool) -> bytes:
    if row.state == Delivery.State.NOTICE:
        return _notice(row).to_bytes() if notices else _without_notice(row).to_bytes()
    if row.state in (Delivery.State.WITHHELD, Delivery.State.HELD):
        return frames.Withheld(stream_named(row.stream), row.seq, row.code).to_bytes()
    if row.state == Delivery.State.EXPIRED:
        return frames.Gone(stream_named(row.stream), row.seq, row.seq, row.code).to_bytes()
    entry = entries.get((row.sender, row.envelope.message_id))
    return stored_delivery(
        row.envelope, stream=row.stream, seq=row.seq, entry=entry, redelivered=row.redelivered
    )


def _notice(row: Delivery) -> frames.Notice:
    """Return the notice of what became of an envelope, at its place in its sender's stream."""
    broadcast = row.envelope.target == BROADCAST_TARGET
    return frames.Notice(
        message_id=row.envelope.message_id,
        status=row.notice,
        code=row.code,
        detail="for one of its recipients or more" if broadcast else "",
        stream=stream_named(row.stream),
        seq=row.seq,
    )


def _without_notice(row: Delivery) -> frames.Gone:
    return frames.Gone(stream_named(row.stream), row.seq, row.seq, NOTICE_UNSUPPORTED)

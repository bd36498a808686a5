"""Read answers for a session that only sends, without a change to the stream.

The stream belongs to the session that takes the agent's mail. What that one has done or refused
concerns it alone, so a copy is delivered anyway.
"""

from __future__ import annotations

from datetime import UTC, datetime

from atp.errors import ClockExpired
from atp.wire import frames
from atp.wire.members import stream_named
from messaging.mail.barred import barred_among
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.inbox import Page, end_of_page, notice_frame
from messaging.models import Delivery
from registry.trail.querysets import entries_of_messages

_WITHHELD = {Delivery.State.WITHHELD, Delivery.State.HELD}


def read_copies(
    agent: str, stream: str, *, after: int, most: int, notices: bool = False
) -> Page | None:
    """Return at most `most` deliveries after the sequence number `after`; `None` if there are none.

    An expired delivery becomes a `gone` frame, one of a revoked or suspended sender a `withheld`
    frame. Nothing is written. `notices` is whether the session knows notices with a place.
    """
    there = Delivery.objects.filter(recipient_id=agent, stream=stream, seq__gt=after)
    last = end_of_page(there.filter(seq__lte=after + most))
    if last is None:
        return None
    rows = list(there.filter(seq__lte=last).select_related("envelope").order_by("seq"))
    barred = barred_among(rows)
    entries = entries_of_messages({row.envelope.message_id for row in rows})
    now = datetime.now(UTC)
    parts = [
        notice_frame(row, notices=notices)
        if row.state == Delivery.State.NOTICE
        else _frame(row, barred.code(row), entries, now)
        for row in rows
    ]
    return Page(rows[0].seq, rows[-1].seq, frames.join_frames(parts).decode())


def _frame(row: Delivery, code: str, entries: dict[tuple[str, str], int], now: datetime) -> bytes:
    stream = stream_named(row.stream)
    if code or row.state in _WITHHELD:
        return frames.Withheld(stream, row.seq, code or row.code).to_bytes()
    if row.expires_at <= now:
        return frames.Gone(stream, row.seq, row.seq, ClockExpired.code).to_bytes()
    entry = entries.get((row.sender, row.envelope.message_id))
    return stored_delivery(row.envelope, stream=row.stream, seq=row.seq, entry=entry)

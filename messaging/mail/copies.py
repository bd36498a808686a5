"""Read the answers and notices that are for a session that only sends.

The stream `answers` belongs to the agent, and so does what of it is done. Such a session gets what
answers its own process; all other places are told as gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Q, QuerySet

from atp.errors import ClockExpired
from atp.wire import frames
from atp.wire.members import stream_named
from atp.wire.words import ANSWERS
from messaging.mail.barred import barred_among
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.inbox import Page, end_of_page, notice_frame
from messaging.mail.waiting import places_not_done
from messaging.models import Delivery, Mailbox
from registry.trail.querysets import entries_of_messages

ELSEWHERE = "delivery.elsewhere"  # code of the places that are for other sessions of the agent

_WITHHELD = {Delivery.State.WITHHELD, Delivery.State.HELD}


@dataclass(frozen=True, slots=True)
class Heard:
    """What a session hears: what is for its process, which is named by its `taker`.

    Up to the place `new_after` only what is not done: it may have heard the rest before.
    """

    taker: str
    new_after: int

    def among(self, box: Mailbox, after: int) -> QuerySet[Delivery]:
        """Return the deliveries of the mailbox behind `after` that it hears."""
        there = Delivery.objects.filter(
            recipient_id=box.agent_id,
            stream=box.stream,
            seq__range=(after + 1, box.last_seq),
            asked_by=self.taker,
        )
        if after >= self.new_after:
            return there
        return there.filter(Q(seq__gt=self.new_after) | places_not_done(box, after=after))


def read_copies(
    agent: str, heard: Heard, *, after: int, most: int, notices: bool = False
) -> Page | None:
    """Return at most `most` deliveries after the sequence number `after`; `None` if there are none.

    The places between them become one `gone` frame for each range, however long. An expired
    delivery becomes a `gone` frame, one of a revoked or suspended sender a `withheld` frame.
    Nothing is written. `notices` is whether the session knows notices with a place.
    """
    box = Mailbox.objects.filter(agent_id=agent, stream=ANSWERS).first()
    if box is None or box.last_seq <= after:
        return None
    there = heard.among(box, after)
    seqs = list(there.order_by("seq").values_list("seq", flat=True)[:most])
    end = end_of_page(there.filter(seq__lte=seqs[-1])) if seqs else None
    is_all = end is None or (end == seqs[-1] and len(seqs) < most)
    rows = list(there.filter(seq__lte=end or 0).select_related("envelope").order_by("seq"))
    last = box.last_seq if is_all or end is None else end
    text = frames.join_frames(_parts(rows, after, last, notices=notices)).decode()
    return Page(after + 1, last, text, own=tuple(row.seq for row in rows))


def _parts(rows: Sequence[Delivery], after: int, last: int, *, notices: bool) -> Iterator[bytes]:
    """Yield the frames of all places from `after` to `last`."""
    barred, now = barred_among(rows), datetime.now(UTC)
    entries = entries_of_messages({row.envelope.message_id for row in rows})
    for row in rows:
        if row.seq > after + 1:
            yield _elsewhere(after + 1, row.seq - 1)
        if row.state == Delivery.State.NOTICE:
            yield notice_frame(row, notices=notices)
        else:
            yield _frame(row, barred.code(row), entries, now)
        after = row.seq
    if after < last:
        yield _elsewhere(after + 1, last)


def _elsewhere(first: int, last: int) -> bytes:
    return frames.Gone(stream_named(ANSWERS), first, last, ELSEWHERE).to_bytes()


def _frame(row: Delivery, code: str, entries: dict[tuple[str, str], int], now: datetime) -> bytes:
    stream = stream_named(row.stream)
    if code or row.state in _WITHHELD:
        return frames.Withheld(stream, row.seq, code or row.code).to_bytes()
    if row.expires_at <= now:
        return frames.Gone(stream, row.seq, row.seq, ClockExpired.code).to_bytes()
    entry = entries.get((row.sender, row.envelope.message_id))
    return stored_delivery(row.envelope, stream=row.stream, seq=row.seq, entry=entry)

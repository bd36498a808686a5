"""Read the deliveries of a stream from the database.

A node reads the deliveries that it could not push: after a login, after a gap, beyond the window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter

from django.db.models import QuerySet

from atp.errors import IdentityNotActive, IdentityRevoked, KeyRevoked
from atp.types import BROADCAST_TARGET
from atp.wire import frames
from atp.wire.members import stream_named
from atp.wire.ranges import Range
from messaging.mail.absences import load_takers
from messaging.mail.attempts import MOST_FAILURES
from messaging.mail.barred import barred_among
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.waiting import at_places, done_in
from messaging.mail.withhold import expire_waiting, hold, refuse_failed, withhold
from messaging.models import Delivery, Mailbox
from registry.trail.querysets import entries_of_messages

PAGE_BYTES = 1_048_576  # of one message to an agent (docs/protocol.md#frames)
DELIVERY_DONE = "delivery.done"  # code of the places that are done (docs/protocol.md#acks)
NOTICE_UNSUPPORTED = "notice.unsupported"  # the session's client can't read notices
FRAME_BYTES = 512  # the most that a delivery frame adds to its envelope
# Places whose envelope does not come there.
ENDED = (Delivery.State.EXPIRED, Delivery.State.REFUSED, Delivery.State.REDELIVERED)


@dataclass(frozen=True, slots=True)
class Page:
    """The frames of one stream from sequence number `first` to `last`, without a gap.

    `done` are the ranges that were done before, and told as such. `own` are the places that are for
    this session, where it only sends.
    """

    first: int
    last: int
    text: str
    done: tuple[Range, ...] = ()
    own: tuple[int, ...] = ()


def read_page(
    agent: str, stream: str, *, after: int, most: int, notices: bool = False
) -> Page | None:
    """Return at most `most` deliveries after the sequence number `after`; `None` if there are none.

    Places that are done become one `gone` frame for each range, however long. Check expiry and
    senders of the others once more, except of what the agent's session has taken. An expired
    delivery, and one whose handlers failed too often, becomes a `gone` frame. A delivery of a
    revoked or suspended sender becomes a `withheld` frame. Each writes an entry to the trail.
    `notices` is whether the session knows notices with a place; another one gets `gone` there.
    """
    box = Mailbox.objects.filter(agent_id=agent, stream=stream).first()
    if box is None or box.last_seq <= after:
        return None
    done = done_in(box)
    rows = _read_rows(box, _first_places(done.gaps(after, box.last_seq), most))
    last = rows[-1].seq if rows else after
    if last + 1 in done:
        last = min(done.end_of_range(last + 1), box.last_seq)
    before = tuple(done.ranges(after, last))
    frames_at = [
        *_frames(rows, box, notices=notices),
        *((first, _gone(box, first, end)) for first, end in before),
    ]
    if not frames_at:
        return None
    frames_at.sort(key=itemgetter(0))
    text = frames.join_frames(frame for _, frame in frames_at).decode()
    return Page(frames_at[0][0], last, text, before)


def _first_places(gaps: Iterable[Range], most: int) -> list[Range]:
    """Return the first `most` places of the ranges, as ranges."""
    taken: list[Range] = []
    for first, last in gaps:
        if most <= 0:
            break
        last = min(last, first + most - 1)
        taken.append((first, last))
        most -= last - first + 1
    return taken


def _read_rows(box: Mailbox, places: Sequence[Range]) -> list[Delivery]:
    """Return the deliveries at these places, as many as fit into a page."""
    if not places:
        return []
    stream = Delivery.objects.filter(recipient_id=box.agent_id, stream=box.stream)
    there = stream.filter(at_places(places))
    last = end_of_page(there)
    if last is None:
        return []
    return list(there.filter(seq__lte=last).select_related("envelope").order_by("seq"))


def _frames(rows: Sequence[Delivery], box: Mailbox, *, notices: bool) -> list[tuple[int, bytes]]:
    """Return the places and frames of these deliveries; end those that may not be delivered."""
    taken = _taken(box)
    loose = [row for row in rows if row.seq > taken]
    _withhold(loose)
    _expire_late(loose, datetime.now(UTC))
    _end_failed(loose)
    entries = entries_of_messages({row.envelope.message_id for row in rows})
    return [(row.seq, _frame(row, entries, notices=notices)) for row in rows]


def _taken(box: Mailbox) -> int:
    """Return the `seq` up to which the agent's current session has taken the deliveries."""
    if box.taken_seq <= box.acked_seq:
        return box.acked_seq
    return box.taken_for(load_takers([box.agent_id]).get(box.agent_id, ""))


def last_sequence_numbers(agents: Collection[str]) -> dict[tuple[str, str], int]:
    """Return the last sequence number of each (agent, stream) of these agents."""
    rows = Mailbox.objects.filter(agent_id__in=agents)
    return {(a, s): last for a, s, last in rows.values_list("agent_id", "stream", "last_seq")}


def end_of_page(deliveries: QuerySet[Delivery]) -> int | None:
    """Return the last of these sequence numbers that fits into a page; `None` if there are none.

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
    barred = barred_among(waiting)
    found: dict[str, list[Delivery]] = {}
    for row in waiting:
        found.setdefault(barred.code(row), []).append(row)
    for code in (IdentityRevoked.code, KeyRevoked.code):
        if affected := found.get(code):
            withhold(affected, code)
    if affected := found.get(IdentityNotActive.code):
        hold(affected)


def _expire_late(rows: Sequence[Delivery], now: datetime) -> None:
    """Mark expired deliveries: the agent acknowledges a `gone` frame, but received no mail."""
    late = [r for r in rows if r.state == Delivery.State.WAITING and r.expires_at <= now]
    if late:
        expire_waiting(late)


def _end_failed(rows: Sequence[Delivery]) -> None:
    """Turn deliveries into dead letters whose handlers failed too often."""
    waiting = [row for row in rows if row.state == Delivery.State.WAITING]
    if failed := [row for row in waiting if row.failures >= MOST_FAILURES]:
        refuse_failed(failed)


def _frame(row: Delivery, entries: dict[tuple[str, str], int], *, notices: bool) -> bytes:
    if row.state == Delivery.State.NOTICE:
        return notice_frame(row, notices=notices)
    if row.state in (Delivery.State.WITHHELD, Delivery.State.HELD):
        return frames.Withheld(stream_named(row.stream), row.seq, row.code).to_bytes()
    if row.state in ENDED:
        return _gone_at(row, row.code)
    entry = entries.get((row.sender, row.envelope.message_id))
    return stored_delivery(
        row.envelope,
        stream=row.stream,
        seq=row.seq,
        entry=entry,
        failures=row.failures,
        redelivered=row.redelivered,
    )


def notice_frame(row: Delivery, *, notices: bool) -> bytes:
    """Return the notice of what became of an envelope, at its place in its sender's stream.

    `notices` is whether the session knows notices with a place; another one gets `gone` there.
    """
    if not notices:
        return _gone_at(row, NOTICE_UNSUPPORTED)
    broadcast = row.envelope.target == BROADCAST_TARGET
    notice = frames.Notice(
        message_id=row.envelope.message_id,
        status=row.notice,
        code=row.code,
        detail="for one of its recipients or more" if broadcast else "",
        stream=stream_named(row.stream),
        seq=row.seq,
    )
    return notice.to_bytes()


def _gone_at(row: Delivery, code: str) -> bytes:
    return frames.Gone(stream_named(row.stream), row.seq, row.seq, code).to_bytes()


def _gone(box: Mailbox, first: int, last: int) -> bytes:
    return frames.Gone(stream_named(box.stream), first, last, DELIVERY_DONE).to_bytes()

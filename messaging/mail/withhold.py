"""End deliveries that wait: withheld and expired ones for good, held ones until a decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from django.db import transaction
from django.db.models import Count, Min, Q, QuerySet
from django.db.models.functions import Greatest

from atp.errors import ClockExpired, HandlerFailed, IdentityNotActive
from messaging.mail.absences import load_takers
from messaging.mail.entries import DeliveryEntries
from messaging.mail.refusals import tell_on_commit
from messaging.mail.waiting import places_not_settled
from messaging.models import Delivery, Mailbox
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

MOST_A_TIME = 256  # entries while the log lock is held (docs/design/provenance.md#entry)
BOXES_A_TIME = 64  # mailboxes locked together; few, so that no lane waits long for one


def withhold(deliveries: Sequence[Delivery], code: str) -> None:
    """Withhold waiting deliveries whose sender or key was revoked; `code` says which.

    Changes the given rows too.
    """
    _end(deliveries, Delivery.State.WITHHELD, code, Kind.ENVELOPE_WITHHELD)


def hold(deliveries: Sequence[Delivery]) -> None:
    """Hold waiting deliveries while their sender is suspended.

    Changes the given rows too.
    """
    _end(deliveries, Delivery.State.HELD, IdentityNotActive.code, Kind.ENVELOPE_WITHHELD)


def expire_waiting(deliveries: Sequence[Delivery]) -> None:
    """Mark waiting deliveries as expired.

    Changes the given rows too.
    """
    _end(deliveries, Delivery.State.EXPIRED, ClockExpired.code, Kind.ENVELOPE_EXPIRED)


def refuse_failed(deliveries: Sequence[Delivery]) -> None:
    """Turn waiting deliveries into dead letters, whose handlers have failed too often.

    Changes the given rows too.
    """
    _end(deliveries, Delivery.State.REFUSED, HandlerFailed.code, Kind.DELIVERY_REFUSED)


def expire(now: datetime) -> int:
    """Mark deliveries that expired before their recipient fetched them; return how many.

    What a live session has taken does not expire, nor what an absent process has that may return.
    Read only streams in which a delivery may be due, many streams at once. So the cost depends on
    how much expires, not on how much waits or was ever sent.
    """
    expired, last = 0, 0
    while (looked_at := _expire_some(now, behind=last)) is not None:
        last, n = looked_at
        expired += n
    return expired


def _expire_some(now: datetime, *, behind: int) -> tuple[int, int] | None:
    """Expire deliveries of some mailboxes; return the last mailbox done and how many expired.

    Return `None` when no mailbox is due. Lock mailboxes before their deliveries, in the same order
    as an acknowledgement, to avoid deadlocks. Skip a mailbox that a batch or another sweep has
    locked; the next sweep takes it.
    """
    with transaction.atomic():
        boxes = list(
            Mailbox.objects.select_for_update(skip_locked=True)
            .filter(Q(next_expiry__lte=now) | Q(next_expiry=None), pk__gt=behind)
            .filter(last_seq__gt=Greatest("acked_seq", "swept_seq"))
            .order_by("pk")[:BOXES_A_TIME]
        )
        if not boxes:
            return None
        due = list(
            _waiting_in(boxes, _taken(boxes))
            .filter(expires_at__lte=now)
            .select_for_update(of=("self",))
            .select_related("envelope")
            # Not by seq: PostgreSQL would read every stream to sort it.
            .order_by("expires_at", "pk")[:MOST_A_TIME]
        )
        Delivery.objects.filter(pk__in=[row.pk for row in due]).update(
            state=Delivery.State.EXPIRED, code=ClockExpired.code
        )
        note_due(due)
        _recount(boxes)
        if due:
            append(entries_of_ended(Kind.ENVELOPE_EXPIRED, due))
    more = len(due) == MOST_A_TIME
    return (behind if more else boxes[-1].pk), len(due)


def _taken(boxes: Sequence[Mailbox]) -> dict[int, int]:
    """Return, by mailbox, the `seq` up to which a session that counts has taken all."""
    some = [box for box in boxes if box.taken_seq > box.acked_seq]
    takers = load_takers({box.agent_id for box in some}) if some else {}
    return {box.pk: box.taken_for(takers.get(box.agent_id, "")) for box in some}


def _waiting_in(
    boxes: Sequence[Mailbox], after: Mapping[int, int] | None = None
) -> QuerySet[Delivery]:
    """Return the waiting deliveries of these mailboxes, those behind `after` where it is given."""
    after = after or {}
    streams = (places_not_settled(box, after=after.get(box.pk, 0)) for box in boxes)
    return Delivery.objects.filter(reduce(or_, streams), state=Delivery.State.WAITING)


def _recount(boxes: Sequence[Mailbox]) -> None:
    """Recount what still waits in these mailboxes, which the caller has locked."""
    waiting = _waiting_in(boxes).order_by().values_list("recipient_id", "stream")
    left = {
        (agent, stream): (first, count, soonest)
        for agent, stream, first, count, soonest in waiting.annotate(
            Min("seq"), Count("seq"), Min("expires_at")
        )
    }
    for box in boxes:
        nothing = (box.last_seq + 1, 0, None)
        first, count, box.next_expiry = left.get((box.agent_id, box.stream), nothing)
        box.swept_seq = first - 1
        box.ended = box.last_seq - box.swept_seq - count
    Mailbox.objects.bulk_update(boxes, ["swept_seq", "ended", "next_expiry"])


def _end(deliveries: Sequence[Delivery], state: str, code: str, kind: Kind) -> None:
    with transaction.atomic():
        for row in deliveries:
            row.state, row.code = state, code
        waiting = Delivery.objects.filter(
            pk__in=[row.pk for row in deliveries], state=Delivery.State.WAITING
        )
        in_order = waiting.select_for_update().order_by("recipient_id", "stream", "seq")
        changed = set(in_order.values_list("pk", flat=True))
        refused_at = datetime.now(UTC) if state == Delivery.State.REFUSED else None
        waiting.update(state=state, code=code, refused_at=refused_at)
        ended = [row for row in deliveries if row.pk in changed]
        if state != Delivery.State.HELD:  # held mail may come yet
            note_due(ended)
        if state == Delivery.State.REFUSED:
            tell_on_commit(ended)
        if drafts := entries_of_ended(kind, ended):
            append(drafts)


def mark_refused(rows: Sequence[Delivery], codes: Mapping[int, str]) -> None:
    """Make dead letters of deliveries that their recipients refuse with these codes, by row id.

    The caller has locked the rows, with their envelopes, in a transaction, and appends the entries.
    """
    now = datetime.now(UTC)
    for row in rows:
        row.state, row.code, row.refused_at = Delivery.State.REFUSED, codes[row.pk], now
    Delivery.objects.bulk_update(rows, ["state", "code", "refused_at"])
    note_due(rows)
    tell_on_commit(rows)


def note_due(ended: Iterable[Delivery]) -> None:
    """Note which senders of these deliveries, which end now for good, are to be told.

    `messaging/mail/notices.py` gives the notices their places, after the commit: the senders'
    mailboxes can't be locked in order here. `envelope` must be loaded.
    """
    asked = [row.pk for row in ended if row.envelope.notify]
    if asked:
        Delivery.objects.filter(pk__in=asked).update(notice_due=True)


def entries_of_ended(kind: Kind, rows: Sequence[Delivery]) -> list[EntryDraft]:
    """Return the entries about deliveries that ended; `envelope` must be loaded."""
    if not rows:
        return []
    entries = DeliveryEntries.about_rows(rows)
    return [
        entries.entry(kind, row, shared={"code": row.code or ClockExpired.code}) for row in rows
    ]

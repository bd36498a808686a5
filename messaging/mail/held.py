"""Settle mail that is held because its sender is suspended.

The recipient was told that the sequence number is withheld, so the stream continues. When officers
resume the sender, the mail gets a new sequence number. When they revoke the sender, or the mail
expires first, it is never delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from atp.errors import ClockExpired, IdentityRevoked, KeyRevoked
from messaging.mail.deliveries import NewDelivery, insert_deliveries
from messaging.mail.entries import DeliveryEntries
from messaging.mail.mailboxes import sweep_around_locked
from messaging.mail.withhold import MOST_A_TIME, entries_of_ended, note_due
from messaging.models import Delivery
from registry.models import Agent, AgentKey
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind


def settle_held(now: datetime) -> int:
    """Settle held mail that expired, or whose sender is not suspended any more.

    Return how many deliveries were settled. The recipients' nodes find released mail at their
    next poll. They check it once more before they send it. Mail for a recipient whose mailbox
    another transaction holds stays for the next sweep; that of others does not wait for it.
    """
    return sweep_around_locked(
        lambda locked: _settle_some(now, locked),
        lambda: _due(now).values_list("recipient_id", flat=True).distinct(),
    )


def _settle_some(now: datetime, locked: Collection[str]) -> int:
    with transaction.atomic():
        due = _due(now).exclude(recipient_id__in=locked)
        due = due.select_for_update(skip_locked=True, of=("self",))
        rows = list(
            due.select_related("envelope").order_by("recipient_id", "stream", "seq")[:MOST_A_TIME]
        )
        if not rows:
            return 0
        codes = _final_codes(rows, now)
        released = [row for row in rows if not codes[row.pk]]
        for row in rows:
            row.code = codes[row.pk] or row.code
            expired = row.code == ClockExpired.code
            row.state = Delivery.State.EXPIRED if expired else Delivery.State.WITHHELD
        Delivery.objects.bulk_update(rows, ["state", "code"])
        note_due(row for row in rows if codes[row.pk])
        drafts = _ended([row for row in rows if codes[row.pk]])
        append([*drafts, *_append_again(released)])
    return len(rows)


def _due(now: datetime) -> QuerySet[Delivery]:
    suspended = Agent.objects.filter(id=OuterRef("sender"), status=Agent.Status.SUSPENDED)
    held = Delivery.objects.filter(state=Delivery.State.HELD)
    return held.filter(Q(expires_at__lte=now) | ~Exists(suspended))


def _final_codes(rows: Sequence[Delivery], now: datetime) -> dict[int, str]:
    """Return, by row id, the code why a delivery never comes; "" if it is released."""
    active = Agent.objects.filter(status=Agent.Status.ACTIVE)
    senders = set(active.filter(id__in={r.sender for r in rows}).values_list("id", flat=True))
    revoked = AgentKey.objects.filter(status=AgentKey.Status.REVOKED)
    kids = set(revoked.filter(kid__in={r.envelope.kid for r in rows}).values_list("kid", flat=True))
    codes = {}
    for row in rows:
        if row.expires_at <= now:
            codes[row.pk] = ClockExpired.code
        elif row.sender not in senders:
            codes[row.pk] = IdentityRevoked.code
        else:
            codes[row.pk] = KeyRevoked.code if row.envelope.kid in kids else ""
    return codes


def _ended(rows: Sequence[Delivery]) -> list[EntryDraft]:
    expired = [row for row in rows if row.state == Delivery.State.EXPIRED]
    withheld = [row for row in rows if row.state != Delivery.State.EXPIRED]
    return [
        *entries_of_ended(Kind.ENVELOPE_EXPIRED, expired),
        *entries_of_ended(Kind.ENVELOPE_WITHHELD, withheld),
    ]


def _append_again(rows: Sequence[Delivery]) -> list[EntryDraft]:
    """Append these to the end of their recipients' streams; return the entries to write."""
    seqs = insert_deliveries([again(row) for row in rows])
    entries = DeliveryEntries.about_rows(rows)
    return [
        entries.entry(
            Kind.ENVELOPE_RELEASED,
            row,
            shared={},
            place={"stream": row.stream, "seq": seq, "instead": row.seq},
        )
        for row, seq in zip(rows, seqs, strict=True)
    ]


def again(row: Delivery, *, redelivered: bool = False) -> NewDelivery:
    """Return a delivery of the same envelope, to be placed at the end of its stream."""
    return NewDelivery(
        row.envelope_id,
        row.recipient_id,
        row.stream,
        row.sender,
        row.expires_at,
        redelivered=redelivered or row.redelivered,
        asked_by=row.asked_by,
    )

"""Tell senders what became of envelopes that they sent with `notify`, in their own streams.

A delivery that ends has `notice_due` from the transaction that ended it, so no notice is lost. The
sweep gives each notice a place in the stream `answers` of the sender. That locks the sender's
mailbox, which the ending transaction could not do: it holds the recipient's already, and two agents
that refuse each other's mail would wait for each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from django.db import transaction
from django.db.models import F, QuerySet

from atp.types import BROADCAST_TARGET
from atp.wire.words import ANSWERS
from messaging.mail.deliveries import DELIVERY_COLUMNS, NewDelivery, assign_places
from messaging.mail.entries import DeliveryEntries
from messaging.mail.mailboxes import sweep_around_locked
from messaging.mail.withhold import MOST_A_TIME
from messaging.models import Delivery, Mailbox
from registry.models import Agent
from registry.storage.bulk import insert_rows
from registry.trail.actions import append

NOTICE_COLUMNS = (*DELIVERY_COLUMNS, "notice")


def place_notices() -> int:
    """Give the notices that are due their places; return how many deliveries were dealt with.

    A notice tells the state and code of one delivery. Of a broadcast, each state is told once, so
    that its sender gets no notice for each hearer. A revoked sender is told nothing. The sender's
    node finds the notice at its next poll.
    """
    return sweep_around_locked(
        _place_some, lambda: _due().values_list("sender", flat=True).distinct()
    )


def _due() -> QuerySet[Delivery]:
    return Delivery.objects.filter(notice_due=True)


def _place_some(locked: Collection[str]) -> int:
    with transaction.atomic():
        # The envelopes are locked too, so that one sweep at a time tells about an envelope.
        due = _due().exclude(sender__in=locked)
        due = due.select_for_update(skip_locked=True, of=("self", "envelope"))
        due = due.select_related("envelope").defer("envelope__content")
        rows = list(due.order_by("pk")[:MOST_A_TIME])
        if rows:
            Delivery.objects.filter(pk__in=[row.pk for row in rows]).update(notice_due=False)
            _place(_worth_telling(rows))
    return len(rows)


def _worth_telling(rows: Sequence[Delivery]) -> list[Delivery]:
    """Leave out what a revoked sender was to be told, and what was told of a broadcast before."""
    senders = Agent.objects.filter(id__in={row.sender for row in rows})
    heard = set(senders.exclude(status=Agent.Status.REVOKED).values_list("id", flat=True))
    broadcasts = {r.envelope_id for r in rows if r.envelope.target == BROADCAST_TARGET}
    notices = Delivery.objects.filter(envelope_id__in=broadcasts, state=Delivery.State.NOTICE)
    told = set(notices.values_list("envelope_id", "notice"))
    wanted = []
    for row in rows:
        if row.sender in heard and (row.envelope_id, row.state) not in told:
            wanted.append(row)
            if row.envelope_id in broadcasts:
                told.add((row.envelope_id, row.state))
    return wanted


def _place(rows: Sequence[Delivery]) -> None:
    """Insert the notices about these deliveries at the end of their senders' streams."""
    if not rows:
        return
    # The columns of a notice: its recipient is the sender, and its sender who ended the delivery.
    new = [
        NewDelivery(row.envelope_id, row.sender, ANSWERS, row.recipient_id, row.expires_at)
        for row in rows
    ]
    seqs = assign_places(new)
    values = [
        (one.envelope_id, one.recipient, one.stream, seq, one.sender, one.expires_at,
         Delivery.State.NOTICE.value, row.code, row.envelope.sent_by, row.state)
        for row, one, seq in zip(rows, new, seqs, strict=True)
    ]  # fmt: skip
    insert_rows(Delivery, NOTICE_COLUMNS, values)
    for agent, count in Counter(one.recipient for one in new).items():
        # No mail waits at these places: notices fill no inbox (docs/protocol.md#notices).
        boxes = Mailbox.objects.filter(agent_id=agent, stream=ANSWERS)
        boxes.update(ended=F("ended") + count)
    _enter(rows, [(one.recipient, seq) for one, seq in zip(new, seqs, strict=True)])


def _enter(rows: Sequence[Delivery], places: Sequence[tuple[str, int]]) -> None:
    """Enter that notices about these deliveries have these places in their senders' streams."""
    entries = DeliveryEntries.about_rows(rows)
    append(
        [
            entries.placed(row.envelope, ANSWERS, [place], notice=row.state)
            for row, place in zip(rows, places, strict=True)
        ]
    )

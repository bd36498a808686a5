"""Assign sequence numbers and take acknowledgements: the counters of the streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from django.db import connection, transaction
from django.db.models import F, Q

from messaging import failpoints
from messaging.layer.routes import load_routes
from messaging.mail.withhold import entry_of
from messaging.models import Delivery, Mailbox
from registry.scores.actions import add_good_traffic
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

ACKS_A_TIME = 128  # each makes two entries at most, and 256 go into one hold of the log lock
CODE_MAX_CHARS = 40  # of the column

_ASSIGN = """
INSERT INTO messaging_mailbox
    (agent_id, stream, last_seq, next_expiry, acked_seq, credited_seq, swept_seq, ended)
VALUES {rows}
ON CONFLICT (agent_id, stream) DO UPDATE
SET last_seq = messaging_mailbox.last_seq + excluded.last_seq,
    next_expiry = CASE WHEN messaging_mailbox.next_expiry < excluded.next_expiry
        THEN messaging_mailbox.next_expiry ELSE excluded.next_expiry END
RETURNING agent_id, stream, last_seq
"""
_ADVANCE = """
UPDATE messaging_mailbox SET acked_seq = ack.column3 FROM (VALUES {rows}) AS ack
WHERE agent_id = ack.column1 AND stream = ack.column2
"""


@dataclass(frozen=True, slots=True)
class MailboxAck:
    """An acknowledgement of everything up to `seq` in one stream.

    `refused` is a code if the recipient refuses the delivery `seq` itself, else "".
    """

    agent: str
    session: str
    stream: str
    seq: int
    refused: str = ""


def assign_sequence_numbers(
    expiries: Mapping[tuple[str, str], Sequence[datetime]],
) -> dict[tuple[str, str], int]:
    """Reserve one sequence number for each expiry; return the first of each (agent, stream).

    One statement increments the counters and locks the rows, in sorted order, so two batches can't
    deadlock. The caller's transaction keeps the locks until it ends, so sequence numbers have no
    gap.
    """
    wanted = sorted(expiries.items())
    rows = ", ".join(["(%s, %s, %s, %s, 0, 0, 0, 0)"] * len(wanted))
    adapt = connection.ops.adapt_datetimefield_value
    parameters = [
        value
        for (agent, stream), dates in wanted
        for value in (agent, stream, len(dates), adapt(min(dates)))
    ]
    with connection.cursor() as cursor:
        cursor.execute(_ASSIGN.format(rows=rows), parameters)
        last = {(agent, stream): seq for agent, stream, seq in cursor.fetchall()}
    return {stream: last[stream] - len(dates) + 1 for stream, dates in expiries.items()}


def acknowledge(acks: Iterable[MailboxAck]) -> list[MailboxAck]:
    """Store a batch of acknowledgements; return those that were taken.

    Leave out an ack whose session is not the agent's current one. Reduce an ack beyond the last
    sequence number of its stream to that number, so that no unsent delivery is acknowledged. What
    was acknowledged before stays so: a refusal of it that comes later changes nothing.
    """
    acks = list(acks)
    failpoints.hit("before_ack", acks)
    routes = load_routes({a.agent for a in acks})
    ours = [a for a in acks if (r := routes.get(a.agent)) and r.live and r.session == a.session]
    ours.sort(key=lambda ack: (ack.agent, ack.stream, ack.seq))
    for start in range(0, len(ours), ACKS_A_TIME):
        _take(ours[start : start + ACKS_A_TIME])
    return ours


def _take(acks: Sequence[MailboxAck]) -> None:
    """Take acks, the highest of a stream last: in one transaction, with their entries."""
    highest = {(ack.agent, ack.stream): ack for ack in acks}
    with transaction.atomic():
        taken = _advance(highest)
        refused = _refuse([ack for ack in acks if ack.refused and _is_in(taken, ack)])
        if taken:
            ranges = [_entry(key, first, last) for key, (first, last) in taken.items()]
            append([*ranges, *map(_refusal, refused)])
        failpoints.hit("inside_ack", taken)


def _is_in(taken: Mapping[tuple[str, str], tuple[int, int]], ack: MailboxAck) -> bool:
    """Return whether this call acknowledged the sequence number of the ack for the first time."""
    first, last = taken.get((ack.agent, ack.stream), (1, 0))
    return first <= ack.seq <= last


def _advance(
    highest: Mapping[tuple[str, str], MailboxAck],
) -> dict[tuple[str, str], tuple[int, int]]:
    """Advance the counters, locked in sorted order; return the new ranges by (agent, stream)."""
    boxes = Mailbox.objects.select_for_update().filter(agent_id__in={a for a, _ in highest})
    taken = {}
    for agent, stream, last, acked in boxes.order_by("agent_id", "stream").values_list(
        "agent_id", "stream", "last_seq", "acked_seq"
    ):
        ack = highest.get((agent, stream))
        if ack is not None and (seq := min(ack.seq, last)) > acked:
            taken[agent, stream] = (acked + 1, seq)
    if taken:
        rows = ", ".join(["(%s, %s, %s)"] * len(taken))
        parameters = [v for key, (_, seq) in taken.items() for v in (*key, seq)]
        with connection.cursor() as cursor:
            cursor.execute(_ADVANCE.format(rows=rows), parameters)
    return taken


def _refuse(acks: Sequence[MailboxAck]) -> list[Delivery]:
    """Mark deliveries as refused, if they wait for this agent; return those marked."""
    if not acks:
        return []
    codes = {(ack.agent, ack.stream, ack.seq): ack.refused[:CODE_MAX_CHARS] for ack in acks}
    named = (Q(recipient_id=a, stream=stream, seq=seq) for a, stream, seq in codes)
    waiting = Delivery.objects.filter(reduce(or_, named), state=Delivery.State.WAITING)
    rows = list(
        waiting.select_for_update(of=("self",))
        .select_related("envelope")
        .defer("envelope__content")
        .order_by("recipient_id", "stream", "seq")
    )
    for row in rows:
        row.state = Delivery.State.REFUSED
        row.code = codes[row.recipient_id, row.stream, row.seq]
    Delivery.objects.bulk_update(rows, ["state", "code"])
    return rows


def _refusal(row: Delivery) -> EntryDraft:
    return replace(entry_of(Kind.DELIVERY_REFUSED, row), actor=f"agent:{row.recipient_id}")


def _entry(stream_key: tuple[str, str], first: int, last: int) -> EntryDraft:
    agent, stream = stream_key
    return EntryDraft(
        kind=Kind.DELIVERY_ACKNOWLEDGED,
        actor=f"agent:{agent}",
        subject=f"{stream} {_ack_range(first, last)}",
        recipient=agent,
        body={"stream": stream, "from": first, "to": last},
    )


def credit_good_traffic() -> int:
    """Count newly acknowledged deliveries for their senders' scores; return how many."""
    counted = 0
    for box in Mailbox.objects.filter(acked_seq__gt=F("credited_seq")):
        counted += _credit(box)
    return counted


def _credit(box: Mailbox) -> int:
    upto = box.acked_seq
    deliveries = Delivery.objects.filter(
        recipient_id=box.agent_id,
        stream=box.stream,
        seq__gt=box.credited_seq,
        seq__lte=upto,
        state=Delivery.State.WAITING,
    )
    senders = Counter(deliveries.values_list("sender", flat=True))
    today = datetime.now(UTC).date()
    with transaction.atomic():
        unclaimed = Mailbox.objects.filter(pk=box.pk, credited_seq=box.credited_seq)
        if not unclaimed.update(credited_seq=upto):  # another run counts these
            return 0
        add_good_traffic([(sender, box.agent_id, today, n) for sender, n in senders.items()])
    return sum(senders.values())


def _ack_range(first: int, last: int) -> str:
    """Return the text of an acknowledged range for the trail: `7`, or `7-9`."""
    return str(first) if first == last else f"{first}-{last}"

"""Insert deliveries at the end of their recipients' streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from messaging.mail.mailboxes import assign_sequence_numbers
from messaging.models import Delivery
from registry.storage.bulk import insert_rows

DELIVERY_COLUMNS = (
    "envelope_id", "recipient_id", "stream", "seq", "sender", "expires_at", "state", "code",
    "asked_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to insert: the row id of the envelope, the recipient and the stream.

    `redelivered` is whether officers have redelivered a dead letter. `asked_by` is the taker of the
    session that an answer or a notice is for.
    """

    envelope_id: int
    recipient: str
    stream: str
    sender: str
    expires_at: datetime
    redelivered: bool = False
    asked_by: str = ""


def insert_deliveries(deliveries: Sequence[NewDelivery]) -> list[int]:
    """Append deliveries to their streams; return their sequence numbers, in the same order.

    The caller must have opened a transaction. The mailboxes stay locked until it ends.
    """
    if not deliveries:
        return []
    seqs = assign_places(deliveries)
    rows = [
        (new.envelope_id, new.recipient, new.stream, seq, new.sender, new.expires_at, "waiting", "",
         new.asked_by)
        for new, seq in zip(deliveries, seqs, strict=True)
    ]  # fmt: skip
    if any(new.redelivered for new in deliveries):  # else the database's default is right
        flags = [(new.redelivered,) for new in deliveries]
        again = [row + flag for row, flag in zip(rows, flags, strict=True)]
        insert_rows(Delivery, (*DELIVERY_COLUMNS, "redelivered"), again)
    else:
        insert_rows(Delivery, DELIVERY_COLUMNS, rows)
    return seqs


def assign_places(deliveries: Sequence[NewDelivery]) -> list[int]:
    """Reserve a place at the end of each delivery's stream; return the sequence numbers.

    The caller inserts the rows in the same transaction, in which the mailboxes stay locked.
    """
    expiries: dict[tuple[str, str], list[datetime]] = {}
    for new in deliveries:
        expiries.setdefault((new.recipient, new.stream), []).append(new.expires_at)
    next_seq = assign_sequence_numbers(expiries)
    seqs = []
    for new in deliveries:
        seqs.append(next_seq[new.recipient, new.stream])
        next_seq[new.recipient, new.stream] += 1
    return seqs

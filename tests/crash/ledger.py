"""The rows of the hub's database at the end of a run, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, LiteralString

import orjson

Query = Callable[[LiteralString], Sequence[tuple[Any, ...]]]
Range = tuple[int, int]  # the first and the last sequence number


@dataclass(frozen=True, slots=True)
class StoredEnvelope:
    """A row of an envelope; `waiting` recipients of a broadcast have no delivery yet."""

    sender: str
    message: str
    digest: str
    target: str
    status: str
    recipients: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A delivery: a sequence number in a recipient's stream, and its envelope."""

    recipient: str
    stream: str
    seq: int
    sender: str
    message: str
    state: str
    code: str = ""
    failures: int = 0  # of its handlers, as the hub counts them


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry of the trail, of the time `at` in seconds since 1970.

    `sound` is whether its leaf has the stored hash.
    """

    index: int
    kind: str
    sender: str
    recipient: str
    message: str
    verdict: str
    subject: str
    sound: bool
    ranges: tuple[Range, ...] = ()  # of an acknowledgement
    at: float = 0.0

    @property
    def acknowledged(self) -> str:
        """The stream of an acknowledgement; "" if the entry is none."""
        return self.subject.partition(" ")[0] if self.kind == "delivery.acknowledged" else ""


@dataclass(frozen=True, slots=True)
class StoredBox:
    """The mailbox of a stream, with its counters."""

    agent: str
    stream: str
    last: int
    acknowledged: int  # up to here
    ahead: tuple[Range, ...] = ()  # and these ranges


@dataclass(frozen=True, slots=True)
class Ledger:
    """All rows of a run."""

    envelopes: Sequence[StoredEnvelope] = field(default_factory=tuple)
    deliveries: Sequence[StoredDelivery] = field(default_factory=tuple)
    entries: Sequence[StoredEntry] = field(default_factory=tuple)
    boxes: Sequence[StoredBox] = field(default_factory=tuple)


def read_ledger(query: Query) -> Ledger:
    """Read the rows of a hub's database, PostgreSQL or SQLite."""
    return Ledger(
        envelopes=[StoredEnvelope(*row) for row in query(_ENVELOPES)],
        deliveries=[StoredDelivery(*row) for row in query(_DELIVERIES)],
        entries=[_entry(row) for row in query(_ENTRIES)],
        boxes=[_box(*row) for row in query(_BOXES)],
    )


def _entry(row: tuple[Any, ...]) -> StoredEntry:
    index, kind, sender, recipient, message, verdict, subject, leaf, told, body, time = row
    sound = sha256(b"\0" + bytes(leaf)).digest() == bytes(told)
    acknowledged = kind == "delivery.acknowledged"
    ranges = _ranges(orjson.loads(bytes(body))["ranges"]) if acknowledged else ()
    at = _seconds(time)
    return StoredEntry(index, kind, sender, recipient, message, verdict, subject, sound, ranges, at)


def _seconds(time: datetime | str) -> float:
    """Return a time as seconds since 1970; SQLite has it as a text in UTC."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return time.timestamp()


def _box(agent: str, stream: str, last: int, acknowledged: int, ahead: Any) -> StoredBox:
    return StoredBox(agent, stream, last, acknowledged, _ranges(ahead))


def _ranges(stored: Any) -> tuple[Range, ...]:
    """Return ranges that are stored as JSON; SQLite gives it as text."""
    found = orjson.loads(stored) if isinstance(stored, str) else stored
    return tuple((first, last) for first, last in found or ())


def unfinished(query: Query) -> str:
    """Return the work left to the hub while all agents are connected; "" if there is none."""
    waiting, behind = (int(query(sql)[0][0]) for sql in (_FANNING_OUT, _BEHIND))
    parts = (f"{waiting} broadcasts to give out", f"{behind} streams to acknowledge")
    return ", ".join(p for p, n in zip(parts, (waiting, behind), strict=True) if n)


_ENVELOPES: LiteralString = """
SELECT sender_id, message_id, digest, target, status, recipients, fan_out IS NOT NULL
FROM messaging_envelope ORDER BY id
"""
_DELIVERIES: LiteralString = """
SELECT d.recipient_id, d.stream, d.seq, e.sender_id, e.message_id, d.state, d.code, d.failures
FROM messaging_delivery d JOIN messaging_envelope e ON e.id = d.envelope_id
ORDER BY d.recipient_id, d.stream, d.seq
"""
_ENTRIES: LiteralString = """
SELECT e.position, kind, e.sender, e.recipient, message_id, verdict, subject, leaf, leaf_hash,
    shared, time
FROM registry_entry AS e LEFT JOIN registry_entrybody AS b ON b.position = e.position
ORDER BY e.position
"""
_BOXES: LiteralString = """
SELECT agent_id, stream, last_seq, acked_seq, done_ahead
FROM messaging_mailbox ORDER BY agent_id, stream
"""
_FANNING_OUT: LiteralString = "SELECT count(*) FROM messaging_envelope WHERE fan_out IS NOT NULL"
_BEHIND: LiteralString = "SELECT count(*) FROM messaging_mailbox WHERE acked_seq < last_seq"

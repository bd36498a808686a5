"""Assign sequence numbers and take acknowledgements: the counters of the streams."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from django.db import OperationalError, connection, transaction
from django.db.models import F, Q

from messaging import failpoints
from messaging.layer.routes import load_routes
from messaging.mail.withhold import entry_of, mark_refused
from messaging.models import Delivery, Mailbox
from registry.scores.actions import add_good_traffic
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

REMEMBER_SECONDS = 10.0  # a locked mailbox, since it was last seen so
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
_PATIENCE = "SET LOCAL lock_timeout = 2000"  # milliseconds; a batch holds its rows for less
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code
_ADVANCE = """
UPDATE messaging_mailbox SET acked_seq = ack.column3 FROM (VALUES {rows}) AS ack
WHERE agent_id = ack.column1 AND stream = ack.column2
"""


class MailboxesLocked(OperationalError):
    """Other transactions hold some of the mailboxes that a batch needs, and go on holding them."""


@contextmanager
def _waiting_for_rows() -> Iterator[None]:
    """Wait two seconds for each lock; raises `MailboxesLocked` after that."""
    try:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(_PATIENCE)
        yield
    except OperationalError as problem:
        if getattr(problem.__cause__, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
            raise MailboxesLocked("mailboxes are locked by others") from problem
        raise


class AcksPutOff(Exception):
    """Some acks could not be taken now: `put_off`; `taken` are those that were."""

    def __init__(self, taken: list[MailboxAck], put_off: list[MailboxAck]) -> None:
        super().__init__(f"{len(put_off)} acks wait for mailboxes that others hold")
        self.taken = taken
        self.put_off = put_off


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
    gap. Raises `MailboxesLocked` after two seconds of waiting.
    """
    wanted = sorted(expiries.items())
    rows = ", ".join(["(%s, %s, %s, %s, 0, 0, 0, 0)"] * len(wanted))
    adapt = connection.ops.adapt_datetimefield_value
    parameters = [
        value
        for (agent, stream), dates in wanted
        for value in (agent, stream, len(dates), adapt(min(dates)))
    ]
    with _waiting_for_rows(), connection.cursor() as cursor:
        cursor.execute(_ASSIGN.format(rows=rows), parameters)
        last = {(agent, stream): seq for agent, stream, seq in cursor.fetchall()}
    return {stream: last[stream] - len(dates) + 1 for stream, dates in expiries.items()}


class LockedMailboxes:
    """Agents with a mailbox that another transaction was seen to hold for long.

    For a while they are looked at before a batch waits for them: those who write to others do not
    wait with it.
    """

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def among(self, agents: Collection[str]) -> set[str]:
        """Those of `agents` that were seen locked lately, and are so now."""
        now = time.monotonic()
        self._seen = {agent: at for agent, at in self._seen.items() if now - at < REMEMBER_SECONDS}
        suspects = self._seen.keys() & set(agents)
        return self.look(suspects) if suspects else set()

    def look(self, agents: Collection[str]) -> set[str]:
        """Those of `agents` whose mailboxes another transaction holds now."""
        boxes = Mailbox.objects.filter(agent_id__in=agents)
        with transaction.atomic():
            free = boxes.select_for_update(skip_locked=True).values_list("pk", flat=True)
            locked = set(boxes.exclude(pk__in=list(free)).values_list("agent_id", flat=True))
        self._seen.update(dict.fromkeys(locked, time.monotonic()))
        return locked


locked_mailboxes = LockedMailboxes()


def sweep_around_locked(
    sweep_some: Callable[[Collection[str]], int], waiting_agents: Callable[[], Collection[str]]
) -> int:
    """Call `sweep_some` until it returns 0; return the sum of what it returned.

    It is passed the agents to leave out. When it raises `MailboxesLocked`, those of
    `waiting_agents` whose mailboxes another transaction holds are left out, until the next sweep.
    """
    swept, locked = 0, set[str]()
    while True:
        try:
            n = sweep_some(locked)
        except MailboxesLocked:
            found = locked_mailboxes.look(set(waiting_agents()) - locked)
            if not found:  # it was let go meanwhile; the next sweep goes on
                return swept
            logger.warning("%d mailboxes are locked by others; their mail waits", len(found))
            locked |= found
            continue
        if not n:
            return swept
        swept += n


def acknowledge(acks: Iterable[MailboxAck]) -> list[MailboxAck]:
    """Store a batch of acknowledgements; return those that were taken.

    Leave out an ack whose session is not the agent's current one. Reduce an ack beyond the last
    sequence number of its stream to that number, so that no unsent delivery is acknowledged. What
    was acknowledged before stays so: a refusal of it that comes later changes nothing. Raises
    `AcksPutOff`, after the others are taken, if other transactions hold mailboxes.
    """
    acks = list(acks)
    failpoints.hit("before_ack", acks)
    routes = load_routes({a.agent for a in acks})
    ours = [a for a in acks if (r := routes.get(a.agent)) and r.live and r.session == a.session]
    ours.sort(key=lambda ack: (ack.agent, ack.stream, ack.seq))
    locked = locked_mailboxes.among({ack.agent for ack in ours})
    for start in range(0, len(ours), ACKS_A_TIME):
        locked |= _take_free(ours[start : start + ACKS_A_TIME], locked)
    taken = [ack for ack in ours if ack.agent not in locked]
    if locked:
        raise AcksPutOff(taken, [ack for ack in ours if ack.agent in locked])
    return taken


def _take_free(acks: Sequence[MailboxAck], locked: Collection[str]) -> set[str]:
    """Take the acks of agents that are not `locked`; return those that turn out to be."""
    free = [ack for ack in acks if ack.agent not in locked]
    try:
        _take(free)
    except MailboxesLocked:
        found = locked_mailboxes.look({ack.agent for ack in free})
        _take([ack for ack in free if ack.agent not in found])
        return found
    return set()


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
    with _waiting_for_rows():
        rows = list(
            boxes.order_by("agent_id", "stream").values_list(
                "agent_id", "stream", "last_seq", "acked_seq"
            )
        )
    for agent, stream, last, acked in rows:
        ack = highest.get((agent, stream))
        if ack is not None and (seq := min(ack.seq, last)) > acked:
            taken[agent, stream] = (acked + 1, seq)
    if taken:
        values = ", ".join(["(%s, %s, %s)"] * len(taken))
        parameters = [v for key, (_, seq) in taken.items() for v in (*key, seq)]
        with connection.cursor() as cursor:
            cursor.execute(_ADVANCE.format(rows=values), parameters)
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
    mark_refused(rows, {row.pk: codes[row.recipient_id, row.stream, row.seq] for row in rows})
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

"""The counters of the streams: assign sequence numbers, and credit what was acknowledged."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import OperationalError, connection, transaction
from django.db.models import F

from messaging.models import Delivery, Mailbox
from registry.scores.actions import add_good_traffic

logger = logging.getLogger(__name__)

REMEMBER_SECONDS = 10.0  # a locked mailbox, since it was last seen so

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


class MailboxesLocked(OperationalError):
    """Other transactions hold some of the mailboxes that a batch needs, and go on holding them."""


@contextmanager
def waiting_for_rows() -> Iterator[None]:
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
    with waiting_for_rows(), connection.cursor() as cursor:
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

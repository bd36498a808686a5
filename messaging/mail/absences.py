"""Absences: agents whose sessions ended abnormally, and whose processes may come back.

A broken network and a killed process end a socket in the same way. So what the session took goes on
counting for `ATP_RETURN_SECONDS`, and a handler that had begun is charged only if its process does
not come back within them (docs/protocol.md#acks).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from messaging.mail.attempts import count_failures
from messaging.models import Absence, Presence

MOST_A_TIME = 64  # absences ended in one transaction

BegunPlace = tuple[str, int]  # stream and sequence number


@dataclass(frozen=True, slots=True)
class Departure:
    """A session that ended abnormally, its taker, and the places whose handlers ran."""

    agent: str
    session: str
    taker: str
    begun: Sequence[BegunPlace]


@dataclass(frozen=True, slots=True)
class Missing:
    """The absence of an agent as a login finds it; `over` is whether its time has passed."""

    taker: str
    begun: tuple[BegunPlace, ...]
    over: bool


def note_departures(departures: Iterable[Departure]) -> None:
    """Note that these agents may come back.

    The caller ends their presences, which it has locked, in the same transaction.
    """
    lease = timedelta(seconds=settings.ATP_RETURN_SECONDS)
    until = ExpressionWrapper(Now() + lease, output_field=DateTimeField())
    rows = [
        Absence(agent_id=one.agent, session_id=one.session, taker=one.taker, until=until,
                begun=list(one.begun))
        for one in departures
    ]  # fmt: skip
    if rows:
        Absence.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["agent"],
            update_fields=["session_id", "taker", "until", "begun"],
        )


def lock_missing(agents: Collection[str]) -> dict[str, Missing]:
    """Lock and return the absences of these agents; the caller has locked their presences."""
    rows = Absence.objects.select_for_update().filter(agent_id__in=agents)
    found = rows.annotate(over=Q(until__lte=Now())).order_by("agent_id")
    return {row.agent_id: Missing(row.taker, _places(row), row.over) for row in found}


def end_missing(missing: Mapping[str, Missing], resumed: Collection[str]) -> None:
    """End these absences, which the caller has locked; the agents in `resumed` are back.

    The handlers that the others had begun have failed.
    """
    if not missing:
        return
    count_failures(
        (agent, stream, seq)
        for agent, one in missing.items()
        if agent not in resumed
        for stream, seq in one.begun
    )
    Absence.objects.filter(agent_id__in=missing).delete()


def end_overdue() -> int:
    """End the absences whose time has passed, and charge their handlers; return how many."""
    ended = 0
    while count := _end_some():
        ended += count
    return ended


def _end_some() -> int:
    with transaction.atomic():
        due = Absence.objects.select_for_update(skip_locked=True).filter(until__lte=Now())
        rows = list(due.order_by("agent_id")[:MOST_A_TIME])
        end_missing({r.agent_id: Missing(r.taker, _places(r), over=True) for r in rows}, ())
    return len(rows)


def load_takers(agents: Collection[str]) -> dict[str, str]:
    """Return, by agent, whose taken deliveries count: those of live sessions and of absences.

    One statement: an agent that leaves or comes back at this moment is in one of the two tables.
    """
    columns = "agent_id", "taker", "session_id"
    here = Presence.objects.filter(agent_id__in=agents, node__lease_until__gt=Now())
    missing = Absence.objects.filter(agent_id__in=agents, until__gt=Now())
    rows = here.values_list(*columns).union(missing.values_list(*columns), all=True)
    return {agent: taker or str(session) for agent, taker, session in rows}


def _places(row: Absence) -> tuple[BegunPlace, ...]:
    return tuple((stream, seq) for stream, seq in row.begun)

"""Count how often handlers of a delivery began and failed.

Only an agent's word and the abnormal end of its socket count: never a delivery, and never the
death of a process of the hub (docs/protocol.md#acks).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final

from django.db.models import F, Q

from messaging.layer.routes import load_routes
from messaging.models import Delivery

MOST_FAILURES: Final = 5  # then the delivery is a dead letter; more are not counted
PLACES_A_STATEMENT = 256  # SQLite takes an expression of depth 1,000

Place = tuple[str, str, int]  # agent, stream and sequence number


@dataclass(frozen=True, slots=True)
class CrashedSession:
    """A session whose socket ended abnormally, and the places (stream, seq) that were begun."""

    agent: str
    session: str
    begun: Sequence[tuple[str, int]]


def count_crashes(crashes: Iterable[CrashedSession]) -> None:
    """Count one failure more for each place that was begun, in the caller's transaction.

    A session that is not its agent's current one counts nothing: its agent goes on elsewhere, or
    this was counted before.
    """
    crashes = [crash for crash in crashes if crash.begun]
    if not crashes:
        return
    routes = load_routes({crash.agent for crash in crashes})
    current = {route.session for route in routes.values()}
    places = sorted(
        (crash.agent, stream, seq)
        for crash in crashes
        if crash.session in current
        for stream, seq in crash.begun
    )
    for start in range(0, len(places), PLACES_A_STATEMENT):
        _count_one_more(places[start : start + PLACES_A_STATEMENT])


def lock_waiting(places: Iterable[Place]) -> list[Delivery]:
    """Lock the deliveries at these places that wait, in sorted order, and return them.

    Their envelopes are loaded without the content.
    """
    named = (Q(recipient_id=agent, stream=stream, seq=seq) for agent, stream, seq in places)
    waiting = Delivery.objects.filter(reduce(or_, named), state=Delivery.State.WAITING)
    return list(
        waiting.select_for_update(of=("self",))
        .select_related("envelope")
        .defer("envelope__content")
        .order_by("recipient_id", "stream", "seq")
    )


def _count_one_more(places: Sequence[Place]) -> None:
    rows = Delivery.objects.filter(pk__in=[row.pk for row in lock_waiting(places)])
    rows.filter(failures__lt=MOST_FAILURES).update(failures=F("failures") + 1)

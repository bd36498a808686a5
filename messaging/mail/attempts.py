"""Count how often handlers of a delivery began and failed.

Only an agent's word and the abnormal end of its socket count, if its process does not come back
(`absences.py`): never a delivery, and never the death of a process of the hub
(docs/protocol.md#acks).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Final

from django.db.models import F, Q

from messaging.models import Delivery

MOST_FAILURES: Final = 5  # then the delivery is a dead letter; more are not counted
PLACES_A_STATEMENT = 256  # SQLite takes an expression of depth 1,000

Place = tuple[str, str, int]  # agent, stream and sequence number


def count_failures(places: Iterable[Place]) -> None:
    """Count one failure more for each of these places that waits, in the caller's transaction."""
    places = sorted(places)
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

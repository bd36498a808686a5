"""What an agent received, answered by the trail alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from messaging.judging.evidence import said_in
from registry.trail.models import Entry

GIVEN = {
    "envelope.accepted",
    "envelope.released",
    "delivery.placed",
    "delivery.redelivered",
}
Place = tuple[str, int]


def received() -> dict[str, dict[Place, tuple[str, str]]]:
    """Return by agent, stream and sequence number (messageId, what) of all that agents got.

    `what` is "mail", or the state that a notice tells. Raises `AssertionError` if the trail names a
    place twice.
    """
    found: dict[str, dict[Place, tuple[str, str]]] = {}
    of_traffic = Entry.objects.filter(kind__in=GIVEN).exclude(recipient="")  # not of other tests
    rows = of_traffic.order_by("position").select_related("body")
    for row in rows.iterator():
        for agent, stream, seq, what in _places(said_in(row)):
            places = found.setdefault(agent, {})
            assert (stream, seq) not in places, f"entry {row.position} names a place again"
            places[stream, seq] = (row.message_id, what)
    return found


def received_by(agent: str) -> dict[Place, tuple[str, str]]:
    """Return what this agent got, as `received` does."""
    return received().get(agent, {})


def _places(entry: dict[str, Any]) -> Iterator[tuple[str, str, int, str]]:
    said = entry["body"].get("recipient") or {}
    if entry["kind"] == "delivery.placed":
        what = entry["body"]["shared"].get("notice", "mail")
        yield from ((agent, said["stream"], seq, what) for agent, seq in said.get("places", ()))
    elif "seq" in said:
        yield entry["recipient"], said["stream"], said["seq"], "mail"

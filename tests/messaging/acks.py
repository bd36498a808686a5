"""What the tests of acks share: sessions with the feature `done`, and the rows that they leave."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from atp.wire.words import DONE
from messaging.mail.absences import end_overdue, load_takers
from messaging.models import Absence, Delivery, Mailbox, Node, Presence, Session
from messaging.node.positions import StreamPosition
from messaging.node.process_node import process_node
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Player
from tests.messaging.conftest import until
from tests.wire import Frame, Wire

TELLS_DONE = {"features": [DONE]}


def box_of(player: Player, stream: str = "mail") -> Mailbox:
    return Mailbox.objects.get(agent_id=player.id, stream=stream)


def marks(player: Player) -> tuple[int, int, list[list[int]]]:
    """Return what is done: the mark and the ranges ahead; and before them what is taken."""
    box = box_of(player)
    taken = box.taken_for(load_takers([player.id]).get(player.id, ""))
    assert sum(last - first + 1 for first, last in box.done_ahead or ()) == box.done_ahead_count
    return taken, box.acked_seq, box.done_ahead or []


def wait_for_marks(player: Player, taken: int, done: int, ahead: list[list[int]]) -> None:
    wanted = (taken, done, ahead)
    until(lambda: marks(player) == wanted, f"{wanted}; the mailbox has {marks(player)}")


def position_of(player: Player, stream: str = "mail") -> StreamPosition:
    """Return the position of the stream on the agent's socket."""
    return process_node.current().roster.agents[player.id].position(stream)


def places(frames: list[Frame]) -> list[Any]:
    """Return the places of deliveries, and first, last and code of what is gone."""
    return [
        f["seq"] if f["type"] == "delivery" else (f["from"], f["to"], f["code"]) for f in frames
    ]


def hear(wire: Wire, count: int) -> list[Any]:
    return places([wire.mail() for _ in range(count)])


def entered_ranges(player: Player) -> list[list[list[int]]]:
    """Return the ranges of each entry about the agent's acks, oldest first."""
    entries = Entry.objects.filter(kind=Kind.DELIVERY_ACKNOWLEDGED, recipient=player.id)
    bodies = [e.body.read() for e in entries.order_by("position")]
    assert {body["stream"] for body in bodies} <= {"mail"}
    return [body["ranges"] for body in bodies]


def states(player: Player) -> list[tuple[str, str, int]]:
    rows = Delivery.objects.filter(recipient_id=player.id, stream="mail").order_by("seq")
    return list(rows.values_list("state", "code", "failures"))


def wait_until_absent(player: Player) -> None:
    """Wait until the hub has noted that the agent's session ended abnormally."""
    until(lambda: Absence.objects.filter(agent_id=player.id).exists(), "the agent's absence")


def stay_away(player: Player) -> None:
    """Have the time pass in which the agent's process may come back."""
    wait_until_absent(player)
    past = datetime.now(UTC) - timedelta(seconds=1)
    Absence.objects.filter(agent_id=player.id).update(until=past)
    assert end_overdue() >= 1


def move_to_dead_node(player: Player) -> Node:
    """Move the agent's session to a node of its own, whose lease has run out."""
    now = datetime.now(UTC)
    node = Node.objects.create(
        id=uuid.uuid4(),
        name="dead",
        channel="nowhere",
        started_at=now,
        lease_until=now - timedelta(minutes=1),
    )
    Presence.objects.filter(agent_id=player.id).update(node=node)
    Session.objects.filter(agent_id=player.id, closed_at=None).update(node=node)
    return node

"""Mail that its recipient refuses, for the tests of dead letters and of notices."""

from __future__ import annotations

from typing import Any

from messaging.models import DeadLetter
from tests.cast import Letter, Player, write
from tests.conftest import LiveHub
from tests.messaging.conftest import LogIn, until
from tests.wire import Frame, Wire

CODE = "handler.failed"


def log_in_for_notices(hub: LiveHub, player: Player) -> Wire:
    """Log in with the feature `notices`; the caller closes the socket."""
    wire = Wire(hub, player)
    challenge = wire.challenge()
    assert "notices" in challenge["features"]
    wire.authenticate(wire.prove(challenge["nonce"]), features=["notices"])
    wire.welcome = wire.next("welcome")
    return wire


def dead_letter(log_in: LogIn, sender: Player, target: Player, **parts: Any) -> DeadLetter:
    """Have one envelope sent and refused; both agents are offline afterwards."""
    letter = write(sender, target, **parts)
    with log_in(sender) as senders:
        assert senders.submit(letter)["status"] == "accepted"
    with log_in(target) as targets:
        refuse(targets, targets.mail())
        return stored(letter)


def refuse(wire: Wire, frame: Frame, code: str = CODE) -> None:
    """Refuse a delivery, as agents without the feature `done` do."""
    wire.ack(frame["seq"], stream=frame["stream"], refused=code)


def stored(letter: Letter) -> DeadLetter:
    """Return the dead letter of this envelope, once the hub has it."""
    dead = DeadLetter.objects.filter(
        envelope__message_id=letter.message_id, refused_at__isnull=False
    )
    until(dead.exists, "the refusal")
    return dead.latest("pk")

"""Alice and Bob, honest and of one organisation; Mallory, a valid agent of another; their sockets.

What a victim saw is told by an honest message sent afterwards: streams have no gaps, so when that
one is the next to arrive, nothing else did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from messaging import failpoints
from registry.policies.actions import save_policy, turn_off
from tests.cast import OFFICER, Player, make_agent, make_organisation, write
from tests.conftest import LiveHub
from tests.wire import PATIENCE_SECONDS, Wire

LogIn = Callable[..., Wire]
Arm = Callable[[str, Callable[[Any], None]], None]


@pytest.fixture
def log_in(hub: LiveHub) -> Iterator[LogIn]:
    """Opens sockets of agents; they are closed after the test."""
    with ExitStack() as opened:

        def log_in(player: Player, **options: Any) -> Wire:
            return opened.enter_context(Wire.log_in(hub, player, **options))

        yield log_in


@pytest.fixture
def knock(hub: LiveHub) -> Iterator[LogIn]:
    """Opens sockets that nobody has authenticated."""
    with ExitStack() as opened:

        def knock(player: Player | None = None, **options: Any) -> Wire:
            return opened.enter_context(Wire(hub, player, **options))

        yield knock


@pytest.fixture
def alice(hub: LiveHub) -> Player:
    return make_agent(name="alice")


@pytest.fixture
def bob(alice: Player) -> Player:
    return make_agent(name="bob", organisation=alice.organisation)


@pytest.fixture
def mallory(hub: LiveHub) -> Player:
    return make_agent(name="mallory")


@pytest.fixture
def arm() -> Iterator[Arm]:
    """Arms failpoints, and disarms them after the test."""
    armed: list[str] = []

    def arm(name: str, action: Callable[[Any], None]) -> None:
        armed.append(name)
        failpoints.arm(name, action)

    yield arm
    for name in armed:
        failpoints.disarm(name)


def _rule(sender: Player, **parts: Any) -> dict[str, Any]:
    mine = {"field": "sender.id", "operator": "equals", "value": sender.id}
    conditions = [mine, *parts.pop("conditions", ())]
    return {"name": "no floods", "conditions": conditions, **parts}


@pytest.fixture
def enforce(alice: Player) -> Iterator[Any]:
    """Puts a rule about Alice in force, for the length of a test."""
    made = []

    def enforce(**rule: Any) -> None:
        document = {"name": f"About {alice.id}", "mode": "enforce", "rules": [_rule(alice, **rule)]}
        made.append(save_policy(document, actor=OFFICER, reason="made for a test"))

    yield enforce
    for policy in made:
        turn_off(policy, actor=OFFICER, reason="end of test")


class Scene:
    """Alice writes to Bob, both are connected; `victims_saw_nothing` is what attacks end with."""

    def __init__(self, hub: LiveHub) -> None:
        organisation = make_organisation()
        self.alice = make_agent(name="alice", organisation=organisation)
        self.bob = make_agent(name="bob", organisation=organisation)
        self.alices = Wire.log_in(hub, self.alice)
        self.bobs = Wire.log_in(hub, self.bob)
        self._seq = {self.alice.id: 0, self.bob.id: 0}

    def victims_saw_nothing(self) -> None:
        """Each gets an honest message, and it is the next thing that they hear."""
        self._exchange(self.alice, self.alices, self.bob, self.bobs)
        self._exchange(self.bob, self.bobs, self.alice, self.alices)

    def _exchange(self, sender: Player, sending: Wire, target: Player, hearing: Wire) -> None:
        marker = write(sender, target)
        assert sending.submit(marker)["status"] == "accepted"
        before, arrived = [], hearing.next("delivery")
        while arrived["ATP"]["messageId"] != marker.message_id:
            before.append(arrived)
            arrived = hearing.next("delivery")
        expected, self._seq[target.id] = self._seq[target.id] + 1, arrived["seq"]
        hearing.ack(arrived["seq"])
        assert before == []
        assert (arrived["stream"], arrived["seq"]) == ("mail", expected)
        assert hearing.unasked() == []

    def skip(self, player: Player) -> None:
        """One message to this victim was part of the test."""
        self._seq[player.id] += 1

    def close(self) -> None:
        self.alices.close()
        self.bobs.close()


@pytest.fixture(scope="module")
def scene(hub: LiveHub) -> Iterator[Scene]:
    scene = Scene(hub)
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def intruder(hub: LiveHub) -> Player:
    """Mallory, where an attack ends before anybody looks at what she did before."""
    return make_agent(name="mallory")


@pytest.fixture(scope="module")
def intruders(hub: LiveHub) -> Iterator[Wire]:
    """A socket of another one, which such attacks leave open."""
    with Wire.log_in(hub, make_agent(name="mallory")) as wire:
        yield wire


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)

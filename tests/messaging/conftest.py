"""Alice and Bob, honest and of one organisation; Mallory, a valid agent of another; their sockets.

To check that a victim got nothing, a test sends it a valid message afterwards. Streams have no
gaps. So if that message is the next to arrive, nothing else arrived.
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
from tests.entry_schemas import problems_of, size_of_log
from tests.messaging.rederiving import TrailReader
from tests.wire import PATIENCE_SECONDS, Wire

LogIn = Callable[..., Wire]
Arm = Callable[[str, Callable[[Any], None]], None]


@pytest.fixture(scope="session")
def trail_reader(database: None) -> TrailReader:
    return TrailReader()


@pytest.fixture(autouse=True)
def every_verdict_follows(request: pytest.FixtureRequest) -> Iterator[None]:
    """Judge again, from the trail alone, what a test with a live hub has had judged.

    And compare each entry with the schema of its kind.
    """
    if "hub" not in request.fixturenames or "django_db" in request.keywords:
        yield
        return
    reader: TrailReader = request.getfixturevalue("trail_reader")
    reader.skip()
    before = size_of_log()
    yield
    assert reader.problems() == []
    assert problems_of(before, size_of_log()) == []


@pytest.fixture
def log_in(hub: LiveHub) -> Iterator[LogIn]:
    """Return a function that opens sockets of agents; close them after the test."""
    with ExitStack() as opened:

        def log_in(player: Player, **options: Any) -> Wire:
            return opened.enter_context(Wire.log_in(hub, player, **options))

        yield log_in


@pytest.fixture
def knock(hub: LiveHub) -> Iterator[LogIn]:
    """Return a function that opens sockets without a login."""
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
    """Return a function that arms failpoints; disarm them after the test."""
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
    """Return a function that puts a rule about Alice in force until the test ends."""
    made = []

    def enforce(**rule: Any) -> None:
        document = {"name": f"About {alice.id}", "mode": "enforce", "rules": [_rule(alice, **rule)]}
        made.append(save_policy(document, actor=OFFICER, reason="made for a test"))

    yield enforce
    for policy in made:
        turn_off(policy, actor=OFFICER, reason="end of test")


class Scene:
    """Alice and Bob, both connected; attacks end with `victims_saw_nothing`."""

    def __init__(self, hub: LiveHub) -> None:
        organisation = make_organisation()
        self.alice = make_agent(name="alice", organisation=organisation)
        self.bob = make_agent(name="bob", organisation=organisation)
        self.alices = Wire.log_in(hub, self.alice)
        self.bobs = Wire.log_in(hub, self.bob)
        self._seq = {self.alice.id: 0, self.bob.id: 0}

    def victims_saw_nothing(self) -> None:
        """Send each victim a valid message, and assert that it is the next frame that they get."""
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
        """Note that one message to this victim was part of the test."""
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
    """Mallory, for attacks that end before her earlier violations count."""
    return make_agent(name="mallory")


@pytest.fixture(scope="module")
def intruders(hub: LiveHub) -> Iterator[Wire]:
    """The socket of an uninvolved agent, which the attacks must not close."""
    with Wire.log_in(hub, make_agent(name="mallory")) as wire:
        yield wire


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)

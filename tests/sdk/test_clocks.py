"""A machine whose clock differs from the hub's: told with the number, and corrected if possible."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from atp import ATPClient, ATPEnvelope, IAgentIdentity, WebSocketTransport
from atp.errors import ClockError, ClockExpired, ClockNotYet
from tests.sdk.fake_hub import FakeHub
from tests.sdk.worlds import SocketWorld


def off_by(hub: FakeHub, seconds: float, *, name: str = "alice") -> ATPClient:
    """A client whose machine's clock differs from the hub's by so many seconds."""
    key = hub.enrol(name)
    transport = WebSocketTransport(
        hub.url, hub_id=hub.id, hub_key=hub.key.public, clock=lambda: time.time() + seconds
    )
    return ATPClient(IAgentIdentity(name), None, key, transport=transport)


async def echo(envelope: ATPEnvelope, respond: Any) -> None:
    await respond(envelope.data)


@pytest.mark.parametrize(("seconds", "told"), [(-40, "40 s behind"), (40, "40 s ahead of")])
async def test_it_corrects_its_dates_and_says_by_how_much(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture, seconds: int, told: str
) -> None:
    """40 s slow, every request had expired before it came to the hub."""
    hub = socket_world.hub
    bob = await socket_world.online("bob")
    bob.on_message("request", echo)
    async with off_by(hub, seconds) as alice:
        assert (await alice.send_request("bob", "in time", {"timeout": 5000})).data == "in time"
        assert abs(alice.transport.clock() - time.time()) < 20
    warnings = [r.getMessage() for r in caplog.records if r.name == "atp.transports.websocket"]
    assert [told in warning for warning in warnings] == [True]
    (sent,) = [e for e in hub.accepted.values() if e.sender == "alice"]
    assert abs(sent.timestamp - time.time()) < 20


@pytest.mark.parametrize("seconds", [-3, 0, 3])
async def test_it_says_nothing_of_a_small_difference(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    with caplog.at_level(logging.WARNING, "atp"):
        async with off_by(socket_world.hub, seconds) as alice:
            assert abs(alice.transport.clock() - time.time()) < 2
    assert not caplog.records


@pytest.mark.parametrize("wrong", ["alice", "bob"])
@pytest.mark.parametrize("seconds", [-4, 4])
async def test_a_small_difference_lets_nothing_expire_early(
    socket_world: SocketWorld, seconds: int, wrong: str
) -> None:
    """It may be longer than a request lives, or its answer."""
    hub = socket_world.hub
    clocks = {"alice": 0, "bob": 0, wrong: seconds}
    alice, bob = (off_by(hub, clocks[name], name=name) for name in ("alice", "bob"))
    async with alice, bob:
        bob.on_message("request", echo)
        assert (await alice.send_request("bob", "in time", {"timeout": 2000})).data == "in time"


@pytest.mark.parametrize(
    ("seconds", "kind", "told"),
    [(-200, ClockExpired, "200 s behind"), (200, ClockNotYet, "200 s ahead of")],
)
async def test_rejects_a_clock_that_is_further_off_with_the_number(
    socket_world: SocketWorld, seconds: int, kind: type[ClockError], told: str
) -> None:
    with pytest.raises(kind, match=f"the login was refused.*{told} the clock of") as caught:
        await off_by(socket_world.hub, seconds).connect()
    assert "set it" in str(caught.value)


async def test_it_is_not_moved_by_a_hub_whose_word_is_far_off(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The challenge is not signed. Whoever writes it can't date what the agent signs."""
    socket_world.hub.clock = lambda: time.time() + 86_400
    async with off_by(socket_world.hub, 0) as alice:
        assert abs(alice.transport.clock() - time.time()) < 1
    assert "it is too much to be corrected here" in caplog.text
    socket_world.hub.clock = time.time


@pytest.mark.parametrize("step", [-7_200, 7_200])
async def test_a_step_of_the_clock_while_connected_changes_no_dates(
    socket_world: SocketWorld, step: int
) -> None:
    hub, stepped = socket_world.hub, {"alice": 0, "bob": 0}

    def agent(name: str) -> ATPClient:
        transport = WebSocketTransport(
            hub.url,
            hub_id=hub.id,
            hub_key=hub.key.public,
            clock=lambda: time.time() + stepped[name],
        )
        return ATPClient(IAgentIdentity(name), None, hub.enrol(name), transport=transport)

    alice, bob = agent("alice"), agent("bob")
    bob.on_message("request", echo)
    async with alice, bob:
        for wrong in ("alice", "bob"):
            stepped[wrong] = step
            answer = await alice.send_request("bob", wrong, {"timeout": 5000})
            assert answer.data == wrong
            stepped[wrong] = 0  # and back: the difference is no lasting one
            assert (await alice.send_request("bob", wrong, {"timeout": 5000})).data == wrong
        assert all(abs(sent.timestamp - time.time()) < 20 for sent in hub.accepted.values())


async def test_it_needs_no_word_on_the_time(socket_world: SocketWorld) -> None:
    socket_world.hub.told_time = "now"
    async with off_by(socket_world.hub, 0) as alice:
        assert alice.get_trust_status()["connected"]

"""Many strangers at once: one in each iteration of the loop, and no memory left afterwards."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import uvloop

from messaging.wire import admission
from messaging.wire.admission import Admission, admissions
from messaging.wire.sockets import BoundedHttp, BoundedWebSocket
from tests.cast import Player
from tests.conftest import LiveHub
from tests.messaging.conftest import Scene, until
from tests.wire import Wire, dial

CROWD = 20
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /ws/agents/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_stranger_enters_at_a_turn(run: Callable[[Any], object]) -> None:
    """Between two admissions, the work of connected agents runs, in every kind of loop."""
    happened: list[str] = []

    async def scenario() -> None:
        ours = admissions.of_running_loop()
        assert admissions.of_running_loop() is ours
        for n in range(5):
            ours.queue(n, lambda: happened.append("stranger"))
        for _ in range(7):
            await asyncio.sleep(0)
            happened.append("insider")

    run(scenario())
    assert "".join(word[0] for word in happened) == "sisisisisiii"


@pytest.mark.parametrize(("seconds", "entered"), [(3_600.0, 1), (0.0, 3)])
async def test_strangers_rest_while_insiders_wait(
    monkeypatch: pytest.MonkeyPatch, seconds: float, entered: int
) -> None:
    monkeypatch.setattr(admission, "REST_SECONDS", seconds)
    ours = Admission(busy=lambda: True)
    happened: list[str] = []
    for n in range(3):
        ours.queue(n, lambda: happened.append("stranger"))
    for _ in range(20):
        await asyncio.sleep(0.001)

    assert len(happened) == entered


def test_each_loop_has_an_admission_of_its_own() -> None:
    async def ours() -> Admission:
        return admissions.of_running_loop()

    assert asyncio.run(ours()) is not asyncio.run(ours())


async def test_strangers_rest_when_they_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REST_SECONDS", 3_600.0)
    ours = Admission(busy=lambda: True)
    happened: list[str] = []
    for n in range(3):
        ours.queue(n, lambda: happened.append("stranger"))
        await asyncio.sleep(0.01)

    assert len(happened) == 1


async def test_nobody_rests_where_the_queue_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise strangers could keep all agents out, one in each pause."""
    monkeypatch.setattr(admission, "REST_SECONDS", 3_600.0)
    monkeypatch.setattr(admission, "LONG_QUEUE", 3)
    ours = Admission(busy=lambda: True)
    happened: list[int] = []
    for n in range(10):
        ours.queue(n, partial(happened.append, n))
    ours.leave(1)
    for _ in range(20):
        await asyncio.sleep(0.001)

    assert happened == [0, 2, 3, 4, 5, 6, 7]
    assert len(ours) == 2


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the waiting protocols; only `let_in` admits them."""
    waiting: list[Any] = []

    def leave(_: Admission, stranger: object) -> None:
        if stranger in waiting:
            waiting.remove(stranger)

    monkeypatch.setattr(Admission, "queue", lambda _, stranger, enter: waiting.append(stranger))
    monkeypatch.setattr(Admission, "leave", leave)
    return waiting


def let_in(outside: list[Any]) -> None:
    stranger = outside.pop(0)
    stranger.loop.call_soon_threadsafe(stranger._enter)


def test_a_stranger_is_not_heard_before_its_turn(
    scene: Scene, hub: LiveHub, outside: list[Any]
) -> None:
    """A protocol waits once it has a request; a closed one waits no longer."""
    with dial(hub.url) as stranger, dial(hub.url) as gone:
        for socket in (stranger, gone):
            socket.sendall(HEALTH[:20])
        scene.victims_saw_nothing()
        assert outside == []
        stranger.sendall(HEALTH[20:])
        until(lambda: len(outside) == 1, "that the first is noticed")
        gone.sendall(HEALTH[20:])
        until(lambda: len(outside) == 2, "that both are noticed")
        outside[1].loop.call_soon_threadsafe(outside[1].transport.abort)
        until(lambda: len(outside) == 1, "that one has gone")
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(1)
        stranger.settimeout(10)
        let_in(outside)
        assert stranger.recv(4_096).startswith(b"HTTP/1.1 200 OK\r\n")
    scene.victims_saw_nothing()


def test_each_request_of_a_connection_waits_for_its_turn(hub: LiveHub, outside: list[Any]) -> None:
    with dial(hub.url) as stranger:
        stranger.settimeout(10)
        for _ in range(3):
            stranger.sendall(HEALTH.replace(b"Connection: close\r\n", b""))
            until(lambda: len(outside) == 1, "that it is noticed")
            let_in(outside)
            assert stranger.recv(4_096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_what_is_no_request_hears_so_at_once(hub: LiveHub) -> None:
    """A client that speaks TLS where there is none, for example."""
    with dial(hub.url) as stranger:
        stranger.settimeout(10)
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert stranger.recv(4_096).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("line", [b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"13"])
def test_an_upgrade_that_is_refused_leaves_no_traceback(
    scene: Scene, hub: LiveHub, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    with dial(hub.url) as stranger:
        stranger.settimeout(10)
        stranger.sendall(UPGRADE.replace(line, b""))
        assert stranger.recv(4_096).startswith(b"HTTP/1.1 4")
        assert stranger.recv(4_096) == b""
    scene.victims_saw_nothing()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_socket_that_is_over_is_freed_without_the_collector(
    hub: LiveHub, alice: Player, no_collector: None
) -> None:
    """Of a crowd that comes and goes, nothing waits until the collector stops everybody."""
    before = _protocols()
    with ExitStack() as opened:
        for n in range(CROWD):
            opened.enter_context(dial(hub.url)).sendall(HEALTH[: 20 * (n % 2)])
            opened.enter_context(Wire(hub))
        opened.enter_context(Wire.log_in(hub, alice))
        refused = opened.enter_context(Wire(hub, alice))
        refused.authenticate(refused.prove("another challenge"))
        until(lambda: len(_besides(before)) > 2 * CROWD, "that the crowd is there")
        ours = [weakref.ref(one) for one in _besides(before)]
        assert refused.ended()[0] == "session.authentication"
    until(lambda: not any(one() for one in ours), "that nothing of it is left")


def _protocols() -> list[Any]:
    return [o for o in gc.get_objects() if type(o) in {BoundedHttp, BoundedWebSocket}]


def _besides(before: list[Any]) -> list[Any]:
    known = set(map(id, before))
    return [one for one in _protocols() if id(one) not in known]

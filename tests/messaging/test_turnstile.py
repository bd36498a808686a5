"""Strangers who come in a crowd: one at each turn of the loop, and nothing left of them after."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import uvloop

from messaging import turnstile
from messaging.sockets import BoundedHttp, BoundedWebSocket
from messaging.turnstile import Turnstile
from tests.cast import Player
from tests.conftest import LiveHub
from tests.messaging.conftest import Scene, until
from tests.wire import Wire, dial

CROWD = 20
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_one_stranger_enters_at_a_turn(run: Callable[[Any], object]) -> None:
    """Whoever is inside has a turn between any two of them, in whichever loop."""
    happened: list[str] = []

    async def scenario() -> None:
        ours = turnstile.of_running_loop()
        assert turnstile.of_running_loop() is ours
        for _ in range(5):
            ours.queue(lambda: happened.append("stranger"))
        for _ in range(7):
            await asyncio.sleep(0)
            happened.append("insider")

    run(scenario())
    assert "".join(word[0] for word in happened) == "sisisisisiii"


@pytest.mark.parametrize(("seconds", "entered"), [(3_600.0, 1), (0.0, 3)])
async def test_strangers_rest_while_insiders_wait(
    monkeypatch: pytest.MonkeyPatch, seconds: float, entered: int
) -> None:
    monkeypatch.setattr(turnstile, "REST_SECONDS", seconds)
    ours = Turnstile()
    ours.busy = lambda: True
    happened: list[str] = []
    for _ in range(3):
        ours.queue(lambda: happened.append("stranger"))
    for _ in range(20):
        await asyncio.sleep(0.001)

    assert len(happened) == entered


def test_each_loop_has_a_turnstile_of_its_own() -> None:
    async def ours() -> Turnstile:
        return turnstile.of_running_loop()

    assert asyncio.run(ours()) is not asyncio.run(ours())


def test_a_stranger_is_not_heard_before_its_turn(
    scene: Scene, hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside: list[Any] = []  # methods of the protocols
    queue, turnstile_of_test = Turnstile.queue, Turnstile()
    monkeypatch.setattr(Turnstile, "queue", lambda _, enter: outside.append(enter))
    with dial(hub.url) as stranger, dial(hub.url) as gone:
        for socket in (stranger, gone):
            socket.sendall(HEALTH[:20])
            socket.sendall(HEALTH[20:])
        until(lambda: len(outside) == 2, "that both are noticed")
        gone.close()
        scene.victims_saw_nothing()
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(1)
        for enter in outside:
            enter.__self__.loop.call_soon_threadsafe(queue, turnstile_of_test, enter)
        stranger.settimeout(10)
        assert stranger.recv(4_096).startswith(b"HTTP/1.1 200 OK\r\n")
    scene.victims_saw_nothing()


def test_a_socket_that_is_over_is_freed_without_the_collector(
    hub: LiveHub, alice: Player, no_collector: None
) -> None:
    """Of a crowd that comes and goes, nothing waits until the collector stops everybody."""
    before = {id(protocol) for protocol in _protocols()}
    with ExitStack() as opened:
        for n in range(CROWD):
            opened.enter_context(dial(hub.url)).sendall(HEALTH[: 20 * (n % 2)])
            opened.enter_context(Wire(hub))
        opened.enter_context(Wire.log_in(hub, alice))
        until(lambda: len(_besides(before)) > 2 * CROWD, "that the crowd is there")
        ours = _besides(before)
    until(lambda: not any(one() for one in ours), "that nothing of it is left")


def _protocols() -> list[Any]:
    return [o for o in gc.get_objects() if type(o) in {BoundedHttp, BoundedWebSocket}]


def _besides(before: set[int]) -> list[weakref.ref[Any]]:
    return [weakref.ref(one) for one in _protocols() if id(one) not in before]

"""A caller that stops waiting reaches the handler on the other side."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from atp import ATPClient
from atp.errors import FlowTimeout, RecipientNoRequest
from atp.wire.frames import Cancelled
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World
from tests.waits import LONGEST_SECONDS, happens


class Desk:
    """Handlers of requests that wait, and what became of them."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.cancelled: list[Any] = []
        self.finished: list[Any] = []
        self.go = asyncio.Event()

    async def handle(self, envelope: Any, respond: Any) -> None:
        data = envelope.payload["data"]
        self.begun.append(data)
        try:
            await happens(self.go, "leave to go on")
        except asyncio.CancelledError:
            self.cancelled.append(data)
            raise
        await respond(data)
        self.finished.append(data)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="atp")


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.go.set()


async def _cancel(*calls: asyncio.Task[Any]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_cancelled_caller_cancels_the_handler(world: World, desk: Desk) -> None:
    alice, bob = await _asking(world, desk)
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: desk.begun)
    await _cancel(call)
    await until(lambda: desk.cancelled == [1])
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    desk.go.set()
    assert (await alice.send_request(bob.identity.id, 2)).data == 2
    await until(lambda: desk.finished == [2])


async def test_a_timeout_cancels_the_handler(world: World, desk: Desk) -> None:
    alice, bob = await _asking(world, desk)
    options = {"timeout": 500, "lifetime": 60}
    with pytest.raises(FlowTimeout):
        await alice.send_request(bob.identity.id, 1, options)
    await until(lambda: desk.cancelled == [1])


async def test_a_handler_that_has_not_begun_is_not_run(world: World, desk: Desk) -> None:
    alice, bob = await _asking(world, desk, max_handlers=1)
    first = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: desk.begun)
    second = asyncio.create_task(alice.send_request(bob.identity.id, 2))
    third = asyncio.create_task(alice.send_request(bob.identity.id, 3))
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    await _cancel(second)
    await alice.send_notification(bob.identity.id, "behind it")  # so bob has heard of it
    desk.go.set()
    assert (await first).data == 1
    assert (await third).data == 3
    assert desk.begun == [1, 3]


async def test_a_handler_is_not_run_that_is_cancelled_while_the_hub_is_told_of_it(
    world: World, desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = await _asking(world, desk)
    told = asyncio.Event()
    written = bob._courier.written

    async def slowly() -> None:
        await happens(told, "the hub being told")
        await written()

    monkeypatch.setattr(bob._courier, "written", slowly)
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: bob.get_trust_status()["handlers"] == 1)
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    await _cancel(call)
    await until(lambda: "has cancelled its request" in caplog.text)
    told.set()
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    assert desk.begun == []


async def test_a_cancelled_handler_cancels_its_own_requests(world: World, desk: Desk) -> None:
    """Alice asks Bob, who asks Carol: Carol's handler stops, too."""
    alice, bob, carol = [await world.agent(name) for name in ("alice", "bob", "carol")]
    carol.on_message("request", desk.handle)

    async def pass_on(envelope: Any, respond: Any) -> None:
        answer = await bob.send_request(carol.identity.id, envelope.payload["data"])
        await respond(answer.data)

    bob.on_message("request", pass_on)
    for client in (alice, bob, carol):
        await client.connect()
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: desk.begun)
    await _cancel(call)
    await until(lambda: desk.cancelled == [1])


@pytest.mark.parametrize("returns", [False, True], ids=["responds", "returns"])
async def test_a_plain_function_goes_on_and_its_answer_is_not_sent(
    world: World, returns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can stop a thread. Its slot is taken until it ends."""
    alice, bob = await world.online("alice"), await world.agent("bob")
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()
    late: list[Any] = []
    alice.on_message("response", late.append)

    def handle(envelope: Any, respond: Any) -> Any:
        begun.set()
        go.wait(LONGEST_SECONDS)
        if not returns:
            with pytest.raises(RecipientNoRequest, match="no longer waits"):
                respond(1)
        ended.set()
        return 1 if returns else None

    bob.on_message("request", handle)
    await bob.connect()
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(begun.is_set)
    await _cancel(call)
    await until(lambda: "has cancelled its request" in caplog.text)
    assert bob.get_trust_status()["handlers"] == 1
    go.set()
    await until(ended.is_set)
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    assert not late
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_request_that_is_to_be_answered_later_is_over(world: World) -> None:
    alice, bob = await world.online("alice"), await world.agent("bob")
    kept: list[Any] = []

    def handle(envelope: Any, respond: Any) -> None:
        respond.later()
        kept.append(respond)

    bob.on_message("request", handle)
    await bob.connect()
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: kept)
    await _cancel(call)
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    with pytest.raises(RecipientNoRequest, match="no longer waits"):
        kept[0](1)


async def test_a_cancelled_request_is_done(socket_world: SocketWorld, desk: Desk) -> None:
    """The hub does not deliver it again, neither on a new connection nor to a new process."""
    alice, bob = await _asking(socket_world, desk)
    call = asyncio.create_task(alice.send_request("bob", 1))
    await until(lambda: desk.begun)
    await _cancel(call)
    await until(lambda: socket_world.hub.accounts["bob"].acked["mail"] == 1)
    await bob.disconnect()
    twin = socket_world.twin(bob)
    twin.on_message("request", desk.handle)
    await twin.connect()
    desk.go.set()
    assert (await alice.send_request("bob", 2)).data == 2
    assert desk.begun == [1, 2]


async def test_a_handler_that_ignores_its_cancellation_sends_no_answer(world: World) -> None:
    alice, bob = await world.online("alice"), await world.agent("bob")
    begun, refused = asyncio.Event(), []

    async def handle(envelope: Any, respond: Any) -> None:
        begun.set()
        try:
            await asyncio.sleep(LONGEST_SECONDS)
        except asyncio.CancelledError:
            with pytest.raises(RecipientNoRequest, match="no longer waits") as caught:
                await respond(1)
            refused.append(caught.value)

    bob.on_message("request", handle)
    await bob.connect()
    late: list[Any] = []
    alice.on_message("response", late.append)
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await happens(begun, "the handler")
    await _cancel(call)
    await until(lambda: refused)
    assert not late


async def test_a_request_with_an_id_of_the_caller_is_not_cancelled(
    world: World, desk: Desk
) -> None:
    """Its caller may send it again, and then the answer must still come."""
    alice, bob = await _asking(world, desk)
    options = {"message_id": str(uuid.uuid4()), "lifetime": 60}
    call = asyncio.create_task(alice.send_request(bob.identity.id, 1, options))
    await until(lambda: desk.begun)
    await _cancel(call)
    again = asyncio.create_task(alice.send_request(bob.identity.id, 1, options))
    await alice.send_notification(bob.identity.id, "behind it")
    desk.go.set()
    assert (await again).data == 1
    assert desk.cancelled == []


# --- With the fake hub ---------------------------------------------------------------------------


async def test_it_tells_the_hub_once(socket_world: SocketWorld, desk: Desk) -> None:
    alice, _ = await _asking(socket_world, desk)
    call = asyncio.create_task(alice.send_request("bob", 1))
    await until(lambda: desk.begun)
    await _cancel(call)
    await until(lambda: desk.cancelled)
    socket_world.cut(alice)
    await until(lambda: socket_world.hub.logins["alice"] == 2)
    await alice.send_notification("bob", "behind it")
    (message_id,) = [key for key, e in socket_world.hub.accepted.items() if e.data == 1]
    assert socket_world.hub.cancels == [("alice", message_id)]


async def test_it_tells_no_hub_that_does_not_know_the_feature(
    socket_world: SocketWorld, desk: Desk
) -> None:
    socket_world.hub.features = ()
    alice, _ = await _asking(socket_world, desk)
    call = asyncio.create_task(alice.send_request("bob", 1))
    await until(lambda: desk.begun)
    await _cancel(call)
    await alice.send_notification("bob", "behind it")
    assert socket_world.hub.cancels == []
    assert desk.cancelled == []


async def test_it_cancels_nothing_that_was_answered_or_never_sent(
    socket_world: SocketWorld, desk: Desk
) -> None:
    alice, _ = await _asking(socket_world, desk)
    desk.go.set()
    await alice.send_request("bob", 1)
    await socket_world.hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    with pytest.raises(FlowTimeout, match="was not sent"):
        await alice.send_request("bob", 2, {"timeout": 50})
    await socket_world.hub.start()
    await until(lambda: alice.get_trust_status()["connected"])
    await alice.send_notification("bob", "behind it")
    assert socket_world.hub.cancels == []
    asked = [e.data for e in socket_world.hub.accepted.values() if e.sender == "alice"]
    assert asked == [1, "behind it"]


async def test_a_cancellation_of_another_sender_stops_nothing(
    socket_world: SocketWorld, desk: Desk
) -> None:
    """A hub tells the sender of the request itself; any other pair is another request."""
    alice, _ = await _asking(socket_world, desk)
    call = asyncio.create_task(alice.send_request("bob", 1))
    await until(lambda: desk.begun)
    (message_id,) = socket_world.hub.accepted
    await socket_world.hub.tell("bob", Cancelled(message_id, "mallory"))
    await socket_world.hub.tell("bob", Cancelled(str(uuid.uuid4()), "alice"))
    await alice.send_notification("bob", "behind it")
    desk.go.set()
    assert (await call).data == 1


async def test_a_cancellation_that_comes_before_its_request_counts(
    socket_world: SocketWorld, desk: Desk
) -> None:
    """The news of the cancellation may be faster than a page of the inbox."""
    hub = socket_world.hub
    alice, _ = await _asking(socket_world, desk)
    hub.keep_deliveries = True
    call = asyncio.create_task(alice.send_request("bob", 1))
    await until(lambda: hub.accepted)
    await _cancel(call)
    await until(lambda: hub.cancels)
    hub.keep_deliveries = False
    desk.go.set()
    assert (await alice.send_request("bob", 2)).data == 2
    assert desk.begun == [2]
    await until(lambda: hub.accounts["bob"].acked["mail"] == 2)


async def _asking(world: World, desk: Desk, **options: Any) -> tuple[ATPClient, ATPClient]:
    """Return alice and bob, who handles requests at the desk."""
    alice, bob = await world.online("alice"), await world.agent("bob", **options)
    bob.on_message("request", desk.handle)
    bob.on_message("notification", lambda envelope: None)
    await bob.connect()
    return alice, bob

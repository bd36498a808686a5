"""When a client opens, how long it tries, and whose event loop it is in."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from atp import ATPClient, ATPEnvelope, IAgentIdentity, PrivateKey, WebSocketTransport
from atp.errors import (
    ATPError,
    FlowTimeout,
    IdentityNotActive,
    SessionClosed,
    SessionTimeout,
    SessionTransport,
)
from tests.sdk.waiting import until
from tests.sdk.worlds import MemoryWorld, SocketWorld, World

LONG_SECONDS = 20


async def echo(envelope: ATPEnvelope, respond: Any) -> None:
    await respond(envelope.data)


async def test_it_waits_for_a_hub_that_starts_later(socket_world: SocketWorld) -> None:
    alice = await socket_world.agent("alice")
    await socket_world.hub.kill()
    connecting = asyncio.create_task(alice.connect(wait=LONG_SECONDS))
    await asyncio.sleep(0.3)
    assert not connecting.done()
    await socket_world.hub.start()
    await connecting
    assert alice.get_trust_status()["connected"]


async def test_it_says_why_it_could_not_connect_until_then(socket_world: SocketWorld) -> None:
    alice = await socket_world.agent("alice")
    await socket_world.hub.kill()
    with pytest.raises(SessionTransport, match="is the hub running there"):
        await alice.connect(wait=0.5)
    with pytest.raises(SessionTransport):
        await alice.connect()
    await socket_world.hub.start()


async def test_it_does_not_wait_after_a_refusal(socket_world: SocketWorld) -> None:
    alice = await socket_world.agent("alice")
    socket_world.hub.refusing["alice"] = IdentityNotActive("the key waits for approval")
    with pytest.raises(IdentityNotActive):
        await alice.connect(wait=LONG_SECONDS)
    assert socket_world.hub.refused_logins["alice"] == 1


async def test_a_send_waits_for_a_hub_that_starts_later(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.agent("alice"), await socket_world.agent("bob")
    bob.on_message("request", echo)
    await socket_world.hub.kill()
    both = asyncio.gather(
        alice.send_request("bob", "at last", {"timeout": LONG_SECONDS * 1000}),
        bob.connect(wait=LONG_SECONDS),
    )
    await asyncio.sleep(0.3)
    await socket_world.hub.start()
    assert (await both)[0].data == "at last"


async def test_the_timeout_of_a_send_holds_while_the_hub_is_away(socket_world: SocketWorld) -> None:
    alice = await socket_world.agent("alice")
    await socket_world.hub.kill()
    with pytest.raises(FlowTimeout, match=r"no connection in 0\.3 s, so nothing was sent"):
        await alice.send_notification("bob", {}, {"timeout": 300})
    await socket_world.hub.start()


async def test_each_send_has_its_own_timeout() -> None:
    """A server takes the connection and says nothing: the second caller does not wait so long."""
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/agents/"
    transport = WebSocketTransport(url, hub_id="hub-1")
    alice = ATPClient(IAgentIdentity("alice"), None, PrivateKey.generate(), transport=transport)
    patient = asyncio.create_task(alice.send_notification("bob", {}, {"timeout": 60_000}))
    with pytest.raises(FlowTimeout, match=r"no connection in 0\.2 s"):
        await asyncio.wait_for(alice.send_notification("bob", {}, {"timeout": 200}), LONG_SECONDS)
    assert not patient.done()
    patient.cancel()
    await asyncio.gather(patient, return_exceptions=True)
    with pytest.raises(SessionTimeout, match=r"no login within 0\.2 s"):
        await asyncio.wait_for(alice.connect(wait=0.2), LONG_SECONDS)
    server.close()


async def test_a_closed_client_does_not_open_by_itself(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", echo)
    await alice.disconnect()
    for send in (alice.send_request, alice.send_notification):
        with pytest.raises(SessionClosed, match=r"only connect\(\) opens it again"):
            await send(bob.identity.id, {})
    with pytest.raises(SessionClosed):
        await alice.broadcast({})
    with pytest.raises(SessionClosed):
        await alice.serve()
    assert not alice.get_trust_status()["connected"]
    await alice.connect()
    assert (await alice.send_request(bob.identity.id, 1)).data == 1


async def test_a_client_that_is_closed_while_it_connects_stays_closed(
    socket_world: SocketWorld,
) -> None:
    alice = await socket_world.agent("alice")
    await socket_world.hub.kill()
    sending = asyncio.create_task(alice.send_notification("bob", {}))
    await asyncio.sleep(0.1)
    await alice.disconnect()
    await socket_world.hub.start()
    with pytest.raises(SessionClosed):
        await sending
    assert socket_world.hub.logins["alice"] == 0


def test_rejects_a_second_event_loop() -> None:
    world = MemoryWorld()

    async def use(alice: ATPClient) -> None:
        await alice.connect()
        await alice.disconnect()

    alice = asyncio.run(world.agent("alice"))
    asyncio.run(use(alice))
    with pytest.raises(RuntimeError, match="the event loop of this client has ended") as caught:
        asyncio.run(use(alice))
    assert isinstance(caught.value, ATPError)


async def test_rejects_another_thread(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    problems: list[BaseException] = []

    def use_elsewhere() -> None:
        for call in (
            lambda: alice.send_notification(bob.identity.id, {}),
            lambda: alice.broadcast({}),
            lambda: alice.connect(),
            lambda: alice.serve(),
            lambda: alice.disconnect(),
        ):
            try:
                asyncio.run(call())
            except RuntimeError as problem:
                problems.append(problem)

    thread = threading.Thread(target=use_elsewhere)
    thread.start()
    await until(lambda: not thread.is_alive())
    assert len(problems) == 5
    assert "belongs to another event loop" in str(problems[0])
    assert "run_coroutine_threadsafe" in str(problems[0])
    receipt = await alice.send_notification(bob.identity.id, "still here")
    assert receipt.status == "accepted"

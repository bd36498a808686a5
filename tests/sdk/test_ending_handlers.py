"""Handlers that cancel themselves, or that disconnect their own client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atp import (
    ATPClient,
    ATPEnvelope,
    IAgentIdentity,
    IAttestation,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
)
from atp.errors import HandlerFailed
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World
from tests.waits import happens


def cancel_self() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def test_a_notification_whose_handler_cancels_itself_is_handled_again(world: World) -> None:
    alice = await world.online("alice")
    bob = await world.online("bob", retry_seconds=0.01)
    attempts: list[int] = []

    async def give_up(envelope: ATPEnvelope) -> None:
        assert envelope.delivery is not None
        attempts.append(envelope.delivery.attempt)
        if len(attempts) == 1:
            cancel_self()
            await asyncio.sleep(60)
        if len(attempts) == 2:
            raise asyncio.CancelledError

    bob.on_message("notification", give_up)
    await alice.send_notification(bob.identity.id, 1)
    await until(lambda: len(attempts) == 3)
    assert attempts == [1, 2, 3]


async def test_a_request_whose_handler_cancels_itself_fails_at_once(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")

    async def give_up(envelope: ATPEnvelope) -> None:
        cancel_self()
        await asyncio.sleep(60)

    bob.on_message("request", give_up)
    with pytest.raises(HandlerFailed, match="the handler was cancelled"):
        await alice.send_request(bob.identity.id, 1, {"timeout": 3_600_000})


async def test_a_handler_may_disconnect_its_client(socket_world: SocketWorld) -> None:
    """Its message is done before the goodbye, and it may still answer and send."""
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    handled: list[Any] = []

    async def stop(envelope: ATPEnvelope) -> Any:
        await bob.disconnect(timeout_seconds=30)
        handled.append(envelope.data)
        await bob.send_notification("alice", "goodbye")
        return "stopped"

    bob.on_message("request", stop)
    bob.on_message("notification", stop)
    serving = asyncio.create_task(bob.serve())
    await alice.send_notification("bob", "first")
    await serving
    assert handled == ["first"]
    assert hub.accounts["bob"].acked["mail"] == 1
    assert hub.close_codes == [1000]

    await bob.connect()
    serving = asyncio.create_task(bob.serve())
    assert (await alice.send_request("bob", "second")).data == "stopped"
    await serving
    assert handled == ["first", "second"]
    assert hub.accounts["bob"].acked["mail"] == 2


async def test_two_handlers_may_disconnect_at_once(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    begun, both = [], asyncio.Event()

    async def stop(envelope: ATPEnvelope) -> None:
        begun.append(envelope.message_id)
        if len(begun) == 2:
            both.set()
        await happens(both, "both handlers")
        await asyncio.create_task(bob.disconnect(timeout_seconds=30))

    bob.on_message("notification", stop)
    for n in range(2):
        await alice.send_notification("bob", n)
    await happens(both, "both handlers")
    await bob.disconnect(timeout_seconds=30)
    assert socket_world.hub.accounts["bob"].acked["mail"] == 2


async def test_a_plain_handler_may_disconnect_its_client(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    loop = asyncio.get_running_loop()

    def stop(envelope: ATPEnvelope) -> None:
        asyncio.run_coroutine_threadsafe(bob.disconnect(timeout_seconds=30), loop).result(30)

    bob.on_message("notification", stop)
    serving = asyncio.create_task(bob.serve())
    await alice.send_notification("bob", 1)
    await serving
    assert socket_world.hub.accounts["bob"].acked["mail"] == 1


def test_the_end_of_the_event_loop_cuts_a_handler() -> None:
    """It does not wait until the caller has heard of it."""
    ended: list[str] = []

    async def wait(envelope: ATPEnvelope) -> None:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            ended.append("cut")
            raise

    async def main() -> None:
        transport = InMemoryTransport()
        alice, bob = (
            ATPClient(
                IAgentIdentity(name, attestation=IAttestation("tests", TrustLevel.VERIFIED)),
                TrustLevel.VERIFIED,
                PrivateKey.generate(),
                transport=transport,
            )
            for name in ("alice", "bob")
        )
        bob.on_message("request", wait)
        await bob.connect()
        asking = asyncio.create_task(alice.send_request("bob", 1, {"timeout": 3_600_000}))
        await until(lambda: bob.get_trust_status()["handlers"])
        await asyncio.sleep(0.05)
        asking.add_done_callback(lambda task: ended.append("stopped asking"))

    asyncio.run(main())
    assert sorted(ended) == ["cut", "stopped asking"]

"""The in-memory transport as its own product: the seed's eight methods, and simulated trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from atp import (
    ATPClient,
    ATPEnvelope,
    IAgentIdentity,
    IATPConfig,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
)
from atp.errors import (
    FlowBusy,
    FlowRecipientFull,
    IdentityInvalidId,
    IdentityMismatch,
    MalformedEnvelope,
    MalformedFrame,
    RecipientUnavailable,
    SessionClosed,
    SignatureDigest,
    SignatureMissing,
)
from atp.transports import Login
from tests.sdk.waiting import until
from tests.sdk.worlds import MemoryWorld


@pytest.fixture
def transport() -> InMemoryTransport:
    transport = InMemoryTransport()
    transport.reset()
    return transport


def message(sender: str, target: str, data: Any = "hello") -> ATPEnvelope:
    payload = {"messageType": "notification", "targetAgent": target, "data": data}
    return ATPEnvelope(IATPConfig(IAgentIdentity(sender), TrustLevel.UNVERIFIED, payload=payload))


def test_it_is_one_for_the_process() -> None:
    assert InMemoryTransport.get_instance() is InMemoryTransport.get_instance()
    assert ATPClient(IAgentIdentity("a"), "verified").transport is InMemoryTransport.get_instance()


async def test_it_hands_envelopes_to_registered_queues(transport: InMemoryTransport) -> None:
    queue: asyncio.Queue[ATPEnvelope] = asyncio.Queue()
    transport.register_agent("bob", queue)
    sent = message("alice", "bob")
    sent.sign("alice's string")
    await transport.send_message("alice", "bob", sent)
    received = queue.get_nowait()
    assert (received.message_id, received.data) == (sent.message_id, "hello")
    assert received.verify_signature()
    assert transport.get_connected_agents() == ["bob"]
    (record,) = transport.get_message_history()
    assert (record.from_agent, record.to_agent) == ("alice", "bob")
    assert record.envelope.data == "hello"
    stats = transport.get_stats()
    assert (stats["messages_accepted"], stats["deliveries"], stats["connected_agents"]) == (1, 1, 1)


async def test_it_reaches_nobody_who_has_left(transport: InMemoryTransport) -> None:
    transport.register_agent("bob", asyncio.Queue())
    transport.unregister_agent("bob")
    transport.unregister_agent("bob")
    with pytest.raises(RecipientUnavailable):
        await transport.send_message("alice", "bob", message("alice", "bob"))
    assert transport.get_connected_agents() == []
    assert transport.get_stats()["messages_refused"] == 1


async def test_rejects_what_does_not_fit(transport: InMemoryTransport) -> None:
    transport.register_agent("bob", asyncio.Queue(maxsize=1))
    with pytest.raises(IdentityInvalidId):
        transport.register_agent("Not An Id", asyncio.Queue())
    with pytest.raises(IdentityMismatch):
        await transport.send_message("mallory", "bob", message("alice", "bob"))
    with pytest.raises(MalformedEnvelope):
        await transport.send_message("alice", "bob", message("alice", "carol"))
    with pytest.raises(MalformedEnvelope):
        await transport.broadcast("alice", message("alice", "bob"))
    await transport.send_message("alice", "bob", message("alice", "bob"))
    with pytest.raises(FlowRecipientFull):
        await transport.send_message("alice", "bob", message("alice", "bob"))


async def test_rejects_forged_and_stripped_signatures(transport: InMemoryTransport) -> None:
    transport.register_agent("bob", asyncio.Queue())
    forged = message("alice", "bob")
    forged.sign("alice's string")
    forged.payload["data"] = "changed"
    with pytest.raises(SignatureDigest):
        await transport.send_message("alice", "bob", forged)
    forged.signature = None
    with pytest.raises(SignatureMissing):
        await transport.send_message("alice", "bob", forged)


@pytest.mark.parametrize("message", [b"1", b"[null]", b'["ATP"]', b"{}"])
async def test_rejects_what_is_no_frame(transport: InMemoryTransport, message: bytes) -> None:
    connection = await transport.connect(
        Login(IAgentIdentity("alice"), TrustLevel.VERIFIED, PrivateKey.generate())
    )
    with pytest.raises(MalformedFrame):
        await connection.send(message)


async def test_it_delays_messages_when_told_to() -> None:
    world = MemoryWorld()
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(envelope.data))
    world.transport.simulate(latency_seconds=0.05)
    began = time.monotonic()
    assert (await alice.send_request("bob", 1)).data == 1
    assert time.monotonic() - began >= 0.1  # at least: there and back
    await world.close()


async def test_it_fails_messages_when_told_to() -> None:
    """Simulated errors are retried by the client until its patience ends."""
    world = MemoryWorld()
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(envelope.data))
    world.transport.simulate(error_rate=0.5, seed=7)
    responses = await asyncio.gather(*(alice.send_request("bob", n) for n in range(20)))
    assert [response.data for response in responses] == list(range(20))
    assert world.transport.get_stats()["simulated_errors"] > 0
    world.transport.simulate(error_rate=1.0)
    with pytest.raises(FlowBusy):
        await alice.send_notification("bob", {}, {"timeout": 100})
    await world.close()


async def test_it_forgets_everything_on_reset() -> None:
    world = MemoryWorld()
    alice, _ = await world.online("alice"), await world.online("bob")
    await alice.send_notification("bob", {})
    world.transport.clock = lambda: 0.0
    world.transport.reset()
    assert world.transport.get_connected_agents() == []
    assert world.transport.get_message_history() == []
    assert world.transport.clock() > 0
    await until(lambda: not alice.get_trust_status()["connected"])
    await world.close()


async def test_it_connects_agents_of_several_threads() -> None:
    """Each thread with an event loop of its own, as two programs in one process would."""
    world = MemoryWorld()
    bob = await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(envelope.data * 2))
    answers: list[Any] = []

    async def ask() -> None:
        async with await world.agent("alice") as alice:
            answers.append((await alice.send_request("bob", 21)).data)

    thread = threading.Thread(target=asyncio.run, args=(ask(),))
    thread.start()
    await until(lambda: not thread.is_alive())
    assert answers == [42]
    await world.close()


def test_it_survives_an_event_loop_that_ended_without_goodbye() -> None:
    """The Quick Start never disconnects; its name is free again for the next program."""
    transport, key = InMemoryTransport(), PrivateKey.generate()

    async def connect_only() -> ATPClient:
        client = ATPClient(IAgentIdentity("alice"), "verified", key, transport=transport)
        await client.connect()
        return client

    asyncio.run(connect_only())
    assert transport.get_connected_agents() == []
    client = asyncio.run(connect_only())
    with pytest.raises(SessionClosed):
        asyncio.run(_receive(transport))
    assert client.get_trust_status()["agent"] == "alice"


async def _receive(transport: InMemoryTransport) -> None:
    login = Login(IAgentIdentity("bob"), TrustLevel.VERIFIED, None)
    connection = await transport.connect(login)
    transport.drop_connection("bob")
    await connection.receive()

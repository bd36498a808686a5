"""Several processes of one agent: one takes mail, the others only send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atp import ATPClient, ATPEnvelope
from atp.errors import SessionSendOnly, SessionSuperseded
from tests.sdk.fake_hub import FakeHub
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World


def status(client: ATPClient, name: str) -> Any:
    return client.get_trust_status()[name]


def keep(client: ATPClient) -> list[Any]:
    """The notifications that a client takes from now on."""
    taken: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        taken.append(envelope.data)

    client.on_message("notification", note)
    return taken


def answer(client: ATPClient) -> None:
    async def echo(envelope: ATPEnvelope, respond: Any) -> None:
        await respond({"echo": envelope.data})

    client.on_message("request", echo)


async def test_a_second_process_sends_and_the_running_agent_goes_on(world: World) -> None:
    bob, running = await world.online("bob"), await world.online("alice")
    answer(bob)
    heard, taken = keep(bob), keep(running)
    answer(running)
    session = status(running, "session")
    tool = world.twin(running)

    response = await tool.send_request(bob.identity.id, 1)
    await tool.send_notification(bob.identity.id, "from the tool")
    assert response.data == {"echo": 1}
    assert status(tool, "send_only")
    await until(lambda: heard)

    await bob.send_notification(running.identity.id, "still there?")
    await until(lambda: taken)
    assert (await bob.send_request(running.identity.id, 2)).data == {"echo": 2}
    assert (await running.send_request(bob.identity.id, 3)).data == {"echo": 3}
    assert (taken, heard) == (["still there?"], ["from the tool"])
    assert (status(running, "session"), status(running, "ended")) == (session, None)


async def test_a_client_alone_takes_mail_though_its_handler_comes_later(world: World) -> None:
    """The order of the seed's README: connect, then a handler, then a broadcast."""
    bob = await world.online("bob")
    alice = await world.online("alice")
    assert not status(alice, "send_only")
    heard: list[Any] = []
    alice.on_message("broadcast", lambda envelope: heard.append(envelope.data))
    receipt = await bob.broadcast("hello")
    await until(lambda: heard)
    assert receipt.recipients == 1


async def test_its_first_handler_takes_the_mail_over(world: World) -> None:
    bob, idle = await world.online("bob"), await world.online("alice")
    answer(bob)
    newer = world.twin(idle)
    await newer.connect()
    assert status(newer, "send_only")
    taken = keep(newer)
    await until(lambda: status(newer, "connected") and not status(newer, "send_only"))
    await until(lambda: status(idle, "connected") and status(idle, "send_only"))
    await bob.send_notification(idle.identity.id, "for the handler")
    await until(lambda: taken)
    both = [client.send_request(bob.identity.id, n) for n, client in enumerate((idle, newer))]
    assert [one.data for one in await asyncio.gather(*both)] == [{"echo": 0}, {"echo": 1}]
    assert status(idle, "ended") is status(newer, "ended") is None


async def test_messages_under_way_arrive_once_when_the_mail_is_claimed(world: World) -> None:
    bob, running = await world.online("bob"), await world.online("alice")
    heard = keep(bob)
    newer = world.twin(running)
    await newer.connect()
    sent = [newer.send_notification(bob.identity.id, n) for n in range(100)]
    sending = asyncio.gather(*sent)
    await asyncio.sleep(0)
    answer(newer)
    assert {receipt.status for receipt in await sending} == {"accepted"}
    await until(lambda: len(heard) >= 100)
    assert sorted(heard) == list(range(100))


async def test_a_client_with_handlers_ends_and_is_told_what_works(world: World) -> None:
    older = await world.online("alice")
    answer(older)
    newer = world.twin(older)
    answer(newer)
    await newer.connect()
    with pytest.raises(SessionSuperseded) as caught:
        await older.serve()
    told = str(caught.value)
    assert older.identity.id in told
    assert "several processes of one agent are not supported" in told
    assert "send_only=True" in told


async def test_a_client_that_only_sends_has_no_handlers(world: World) -> None:
    bob, running = await world.online("bob"), await world.online("alice")
    answer(bob)
    tool = world.twin(running, send_only=True)
    with pytest.raises(SessionSendOnly, match="send_only=True"):
        keep(tool)
    assert (await tool.send_request(bob.identity.id, 1)).data == {"echo": 1}
    assert status(tool, "send_only")


async def test_a_client_that_only_sends_takes_no_mail_where_it_is_alone(
    socket_world: SocketWorld,
) -> None:
    bob, alice = await socket_world.online("bob"), await socket_world.agent("alice")
    answer(bob)
    tool = socket_world.twin(alice, send_only=True)
    await tool.connect()
    assert status(tool, "send_only")
    await bob.send_notification("alice", "stays at the hub")
    assert (await tool.send_request("bob", 1)).data == {"echo": 1}
    assert not socket_world.hub.accounts["alice"].pushed["mail"]
    taken = keep(alice)
    await alice.connect()
    await until(lambda: taken)
    assert not status(alice, "send_only")
    assert status(tool, "connected")


async def test_it_tells_the_hub_whether_it_comes_back(socket_world: SocketWorld) -> None:
    """The hub lets a process that comes back keep what it has taken."""
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    beside = await socket_world.agent("bob")
    other = socket_world.twin(beside)
    await beside.connect()
    await other.connect()
    assert status(other, "send_only")
    keep(other)  # so it logs in again, to take the mail
    await until(lambda: len(hub.close_codes) == 2)
    assert 4000 in hub.close_codes
    await alice.disconnect()
    await until(lambda: len(hub.close_codes) == 3)
    assert hub.close_codes[-1] == 1000


async def test_a_client_that_comes_back_keeps_its_session_that_takes_mail(world: World) -> None:
    """Its old socket may still look alive to the hub."""
    bob, alice = await world.online("bob"), await world.online("alice")
    answer(bob)
    for n in range(3):
        await alice.disconnect()
        await alice.connect()
        assert (await alice.send_request(bob.identity.id, n)).data == {"echo": n}
        assert not status(alice, "send_only")


async def test_four_processes_without_handlers_get_their_own_answers(world: World) -> None:
    bob, first = await world.online("bob"), await world.online("alice")
    answer(bob)
    workers = [first, *(world.twin(first) for _ in range(3))]
    asked = [w.send_request(bob.identity.id, [n, i]) for n, w in enumerate(workers) for i in (1, 2)]
    assert [one.data["echo"] for one in await asyncio.gather(*asked)] == [
        [n, i] for n in range(4) for i in (1, 2)
    ]
    assert [status(worker, "send_only") for worker in workers] == [False, True, True, True]


async def test_on_a_hub_without_the_feature_a_superseded_client_ends() -> None:
    """Two clients without handlers would end each other's sessions forever."""
    hub = FakeHub()
    hub.features = ()
    await hub.start()
    world = SocketWorld(hub)
    older = await world.online("alice")
    await world.twin(older).connect()
    await until(lambda: status(older, "ended"))
    assert status(older, "ended") == "session.superseded"
    await world.close()

"""Mail belongs to the hub until its handler has ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from atp import ATPClient, ATPEnvelope
from atp.agent import handler_table
from atp.wire.frames import Gone
from tests.sdk.fake_acks import WINDOW
from tests.sdk.fake_hub import Account
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World
from tests.waits import happens

LATE_SECONDS = 0.3  # after the connection, as in the report of lost mail


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.running = 0
        self.most_running = 0

    async def __call__(self, envelope: ATPEnvelope) -> None:
        self.begun.append(envelope.data)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await happens(self.opened, "the test opening the gate", seconds=60)
        finally:
            self.running -= 1
        self.ended.append(envelope.data)


async def stored(world: SocketWorld, count: int, *, to: str = "bob") -> Account:
    """Send notifications 0, 1, 2, ... from alice; return the account of their recipient."""
    alice = await world.online("alice")
    await asyncio.gather(*(alice.send_notification(to, n) for n in range(count)))
    return world.hub.accounts[to]


async def test_it_loses_nothing_that_comes_before_the_first_handler(world: World) -> None:
    """The given input: connect, and register the handler 0.3 s later. All twenty were lost."""
    alice, bob = await world.online("alice"), await world.online("bob")
    for n in range(20):
        await alice.send_notification(bob.identity.id, n)
    await asyncio.sleep(LATE_SECONDS)
    handled: list[Any] = []
    bob.on_message("notification", lambda envelope: handled.append(envelope.data))
    await until(lambda: len(handled) == 20)
    assert sorted(handled) == list(range(20))


async def test_it_takes_nothing_before_the_first_handler(socket_world: SocketWorld) -> None:
    bob = await socket_world.online("bob")
    account = await stored(socket_world, WINDOW + 10)
    await until(lambda: account.pushed["mail"] == WINDOW)
    assert account.book.acks == []
    bob.on_message("response", lambda envelope: None)  # late answers are no mail
    await asyncio.sleep(0.05)
    assert account.book.acks == []
    handled: list[Any] = []
    bob.on_message("notification", lambda envelope: handled.append(envelope.data))
    await until(lambda: account.acked["mail"] == WINDOW + 10)
    assert len(handled) == WINDOW + 10


async def test_it_refuses_what_nobody_handles_after_a_while(
    socket_world: SocketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_table, "GRACE_SECONDS", 0.2)
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    account = socket_world.hub.accounts["bob"]
    await alice.send_notification("bob", "to nobody")
    await alice.broadcast("heard")
    heard: list[Any] = []
    bob.on_message("broadcast", lambda envelope: heard.append(envelope.data))
    await until(lambda: account.acked["mail"] == 2)
    assert heard == ["heard"]
    assert account.refused == [("mail", 1, "recipient.no_handler")]
    # Officers send it again when there is a handler: it is no repeat then.
    handled: list[Any] = []
    bob.on_message("notification", lambda envelope: handled.append(envelope.data))
    await socket_world.hub.redeliver("bob", "mail", 1)
    await until(lambda: account.acked["mail"] == 3)
    assert handled == ["to nobody"]


async def test_it_tells_that_a_handler_begins_before_it_begins(socket_world: SocketWorld) -> None:
    bob = await socket_world.online("bob")
    account = socket_world.hub.accounts["bob"]
    told: list[bool] = []

    async def look(envelope: ATPEnvelope) -> None:
        await until(lambda: account.book.begun)
        told.append(account.acked["mail"] == 0)

    bob.on_message("notification", look)
    await stored(socket_world, 1)
    await until(lambda: account.acked["mail"] == 1)
    assert told == [True]
    assert not account.book.begun


async def test_it_tells_in_one_ack_what_begins_together(socket_world: SocketWorld) -> None:
    bob, gate = await socket_world.online("bob"), Gate()
    account = await stored(socket_world, 5)
    await until(lambda: account.pushed["mail"] == 5)
    await asyncio.sleep(0.05)
    bob.on_message("notification", gate)
    await until(lambda: len(account.book.begun) == 5)
    assert [(ack.seq, ack.begun) for ack in account.book.acks] == [(5, (1, 2, 3, 4, 5))]
    gate.opened.set()


async def test_it_is_done_when_its_handler_has_ended(socket_world: SocketWorld) -> None:
    bob, gate = await socket_world.online("bob"), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, 3)
    await until(lambda: len(gate.begun) == 3)
    await until(lambda: account.book.taken["mail"] == 3)
    assert account.acked["mail"] == 0
    gate.opened.set()
    await until(lambda: account.acked["mail"] == 3)


async def test_it_runs_nothing_twice_that_comes_again_while_it_runs(
    socket_world: SocketWorld,
) -> None:
    """Neither what runs nor what waits; and what began is told on the new connection too."""
    bob, gate = await socket_world.online("bob", max_handlers=2), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, 5)
    await until(lambda: len(gate.begun) == 2)
    for logins in (2, 3):
        socket_world.cut(bob)
        await until(lambda: socket_world.hub.logins["bob"] == logins)  # noqa: B023
        await until(lambda: len(account.book.begun) == 2)
    gate.opened.set()
    await until(lambda: account.acked["mail"] == 5)
    assert Counter(gate.ended) == Counter(range(5))
    assert not account.book.failures


async def test_it_begins_nothing_while_it_has_no_connection(socket_world: SocketWorld) -> None:
    """Another process of the agent, or the hub, may have the mail by now."""
    bob, gate = await socket_world.online("bob", max_handlers=1), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, 2)
    await until(lambda: gate.begun)
    await socket_world.hub.kill()
    await until(lambda: not bob.get_trust_status()["connected"])
    gate.opened.set()
    await until(lambda: gate.ended)
    await asyncio.sleep(0.05)
    assert len(gate.begun) == 1
    await socket_world.hub.start()
    await until(lambda: account.acked["mail"] == 2)
    assert len(gate.begun) == 2


async def test_it_drops_what_the_hub_took_back_meanwhile(socket_world: SocketWorld) -> None:
    bob, gate = await socket_world.online("bob", max_handlers=1), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, 3)
    await until(lambda: gate.begun and account.book.taken["mail"] == 3)
    socket_world.hub.keep_deliveries = True
    socket_world.cut(bob)
    await until(lambda: account.socket)
    account.pushed["mail"] = 3
    await socket_world.hub.tell("bob", Gone("mail", 1, 3, "clock.expired"))
    await until(lambda: account.acked["mail"] == 3)
    gate.opened.set()
    await until(lambda: gate.ended)
    await asyncio.sleep(0.05)
    assert len(gate.begun) == 1


async def test_it_acknowledges_again_what_was_done(socket_world: SocketWorld) -> None:
    """The hub had not stored the ack; the handler does not run again."""
    bob = await socket_world.online("bob")
    handled: list[Any] = []
    bob.on_message("notification", lambda envelope: handled.append(envelope.data))
    account = await stored(socket_world, 3)
    await until(lambda: account.acked["mail"] == 3)
    account.acked["mail"] = 0
    socket_world.cut(bob)
    await until(lambda: account.acked["mail"] == 3)
    assert len(handled) == 3


async def test_a_long_handler_stops_nobody(socket_world: SocketWorld) -> None:
    """One handler runs for as long as the others handle far more than every window."""
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob")
    gate = Gate()
    handled = 0

    async def handle(envelope: ATPEnvelope) -> None:
        nonlocal handled
        if envelope.data == "long":
            await gate(envelope)
        handled += 1

    bob.on_message("notification", handle)
    bob.on_message("request", lambda envelope: envelope.data)
    account = socket_world.hub.accounts["bob"]
    await alice.send_notification("bob", "long")
    for part in range(10):
        await asyncio.gather(*(alice.send_notification("bob", n) for n in range(WINDOW)))
        assert (await alice.send_request("bob", part)).data == part
    await until(lambda: handled == 10 * WINDOW)
    await until(lambda: len(account.book.beyond["mail"]) == 10 * WINDOW + 10)
    assert account.acked["mail"] == 0
    gate.opened.set()
    await until(lambda: account.acked["mail"] == 10 * WINDOW + 11)


async def test_a_thousand_handlers_live_at_once(socket_world: SocketWorld) -> None:
    """Each waits for an answer, and so holds no place."""
    alice = await socket_world.online("alice")
    bob, carol = await socket_world.online("bob"), await socket_world.online("carol")
    release = asyncio.Event()
    asked = 0

    async def hold(envelope: ATPEnvelope, respond: Any) -> None:
        nonlocal asked
        asked += 1
        respond.later()

        async def answer() -> None:
            await happens(release, "the test releasing the answers", seconds=60)
            await respond(envelope.data)

        answers.append(asyncio.create_task(answer()))

    answers: list[asyncio.Task[None]] = []

    async def pass_on(envelope: ATPEnvelope, respond: Any) -> Any:
        return (await bob.send_request("carol", envelope.data, {"timeout": 60_000})).data

    carol.on_message("request", hold)
    bob.on_message("request", pass_on)
    requests = [
        asyncio.create_task(alice.send_request("bob", n, {"timeout": 60_000})) for n in range(1000)
    ]
    await until(lambda: asked == 1000)
    assert bob.get_trust_status()["handlers"] == 1000
    release.set()
    assert [done.data for done in await asyncio.gather(*requests)] == list(range(1000))
    await asyncio.gather(*answers)


async def test_agents_that_ask_each_other_need_no_room(world: World) -> None:
    """Each handler waits for one behind it, and the first fills the room already."""
    nested = 20
    alice = await world.online("alice", max_mail_bytes=1)
    bob = await world.online("bob", max_mail_bytes=1)

    def asks(client: ATPClient, other: ATPClient) -> Any:
        async def handle(envelope: ATPEnvelope) -> Any:
            depth = envelope.data
            if depth == nested:
                return depth
            return (await client.send_request(other.identity.id, depth + 1)).data

        return handle

    alice.on_message("request", asks(alice, bob))
    bob.on_message("request", asks(bob, alice))
    answer = await alice.send_request(bob.identity.id, 0, {"timeout": 20_000})
    assert answer.data == nested


# --- A hub without the feature `done` ---


async def test_an_older_hub_keeps_what_is_not_handled(socket_world: SocketWorld) -> None:
    socket_world.hub.features = ()
    bob, gate = await socket_world.online("bob", max_handlers=4), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, WINDOW + 50)
    await until(lambda: len(gate.begun) == 4)
    assert account.acked["mail"] == 0
    socket_world.cut(bob)
    await until(lambda: socket_world.hub.logins["bob"] == 2)
    gate.opened.set()
    await until(lambda: account.acked["mail"] == WINDOW + 50)
    assert Counter(gate.ended) == Counter(range(WINDOW + 50))


async def test_an_older_hub_gets_refusals_in_their_places(
    socket_world: SocketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_table, "GRACE_SECONDS", 0.1)
    socket_world.hub.features = ()
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("broadcast", lambda envelope: None)
    for _ in range(2):
        await alice.broadcast("heard")
        await alice.send_notification("bob", "to nobody")
    account = socket_world.hub.accounts["bob"]
    await until(lambda: account.acked["mail"] == 4)
    assert account.refused == [("mail", n, "recipient.no_handler") for n in (2, 4)]


# --- The end of a client ---


async def test_it_hands_back_what_has_not_begun(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = await world.online("alice"), await world.online("bob", max_handlers=2)
    gate = Gate()
    bob.on_message("notification", gate)
    for n in range(30):
        await alice.send_notification(bob.identity.id, n)
    await until(lambda: len(gate.begun) == 2)
    await until(lambda: len(bob._courier.inbox._mail) == 30)
    leaving = asyncio.create_task(bob.disconnect(timeout_seconds=20))
    await asyncio.sleep(0.05)
    gate.opened.set()
    await leaving
    assert len(gate.ended) == 2
    (line,) = [r.message for r in caplog.records if "handed back" in r.message]
    assert "handed back to the hub (28): notification " in line
    assert line.count(f" from {alice.identity.id}, ") == 20
    assert line.endswith(", and 8 more")
    assert "was cancelled" not in caplog.text
    await bob.connect()
    await until(lambda: len(gate.ended) == 30)
    assert sorted(gate.ended) == list(range(30))


async def test_it_says_exactly_what_was_cut(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture
) -> None:
    bob, gate = await socket_world.online("bob", max_handlers=1), Gate()
    bob.on_message("notification", gate)
    account = await stored(socket_world, 2)
    await until(lambda: gate.begun)
    cut, back = (posted.envelope for posted in account.streams["mail"])
    await bob.disconnect(timeout_seconds=0)
    lines = [record.message for record in caplog.records if record.name == "atp.agent.dispatch"]
    assert lines[-2:] == [
        f"bob: its handler was cancelled: notification {cut.message_id} from alice",
        f"bob: handed back to the hub (1): notification {back.message_id} from alice",
    ]
    assert not account.book.failures  # a client that says goodbye has not crashed
    gate.opened.set()
    await bob.connect()
    await until(lambda: account.acked["mail"] == 2)
    assert len(gate.ended) == 2


async def test_it_does_not_run_again_what_goes_on_in_a_thread(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    loop, opened = asyncio.get_running_loop(), asyncio.Event()
    begun: list[int] = []

    def block(envelope: ATPEnvelope) -> None:
        begun.append(envelope.data)
        asyncio.run_coroutine_threadsafe(happens(opened, "the test opening"), loop).result(20)

    bob.on_message("notification", block)
    await alice.send_notification(bob.identity.id, 1)
    await until(lambda: begun)
    await bob.disconnect(timeout_seconds=0)
    await bob.connect()
    await alice.send_notification(bob.identity.id, 2)
    await until(lambda: 2 in begun)
    opened.set()
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    assert begun == [1, 2]

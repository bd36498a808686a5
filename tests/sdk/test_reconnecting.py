"""The client after a hub's end, a lost receipt or a repeated delivery."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sized
from functools import partial
from typing import Any

import pytest

from atp import ATPEnvelope
from atp.errors import (
    ClockExpired,
    FlowBusy,
    FlowTimeout,
    FlowTooMany,
    PolicyDenied,
    PolicyHeld,
)
from atp.judging.judgement import Verdict
from atp.trust.envelope import Envelope
from atp.wire.agent_frames import Submission
from atp.wire.frames import Gone, Notice, Receipt, Withheld
from tests.sdk.fake_acks import WINDOW
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld
from tests.waits import happens

ASKED_SECONDS = 1.5  # more than the client waits by itself after one refusal


async def echo(envelope: ATPEnvelope, respond: Any) -> None:
    await respond(envelope.data)


async def test_it_survives_a_hub_that_is_killed_again_and_again(socket_world: SocketWorld) -> None:
    """Nothing with a receipt is lost, nothing reaches a handler twice."""
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    handled: Counter[int] = Counter()

    async def count(envelope: ATPEnvelope, respond: Any) -> None:
        handled[envelope.data] += 1
        await respond(envelope.data)

    bob.on_message("request", count)
    asked = [
        asyncio.create_task(alice.send_request("bob", n, {"timeout": 60_000})) for n in range(400)
    ]
    for part in (50, 150, 250):
        await until(partial(_at_least, handled, part))
        await hub.kill()
        await hub.start()
    responses = await asyncio.gather(*asked)
    assert [response.data for response in responses] == list(range(400))
    assert handled == Counter(range(400))
    assert hub.logins["alice"] > 1


async def test_it_sends_again_what_has_no_receipt(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    got: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.data)

    bob.on_message("notification", note)
    hub.lose_receipts = 1
    receipt = await alice.send_notification("bob", "once")
    await until(lambda: got)
    assert receipt.status == "accepted"
    assert hub.received[receipt.message_id] == 2
    assert got == ["once"]


async def test_it_sends_while_the_hub_is_away(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", echo)
    await hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    request = asyncio.create_task(alice.send_request("bob", "later"))
    await asyncio.sleep(0)
    await hub.start()
    assert (await request).data == "later"


async def test_it_says_when_the_hub_could_not_be_reached(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    await socket_world.hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    with pytest.raises(FlowTimeout) as caught:
        await alice.send_request("bob", {}, {"timeout": 100})
    assert "can't be reached" in str(caught.value)
    await socket_world.hub.start()


async def test_it_drops_what_is_delivered_twice(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    hub.deliver_twice = True
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    handled: list[Any] = []

    async def note(envelope: ATPEnvelope, respond: Any) -> None:
        handled.append(envelope.data)
        await respond(None)

    bob.on_message("request", note)
    for n in range(20):
        await alice.send_request("bob", n)
    assert handled == list(range(20))


async def test_it_drops_what_comes_again_on_the_next_connection(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    handled: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        handled.append(envelope.data)

    bob.on_message("notification", note)
    for n in range(5):
        await alice.send_notification("bob", n)
    await until(lambda: len(handled) == 5 and hub.accounts["bob"].acked["mail"] == 5)
    hub.accounts["bob"].acked["mail"] = 2  # the hub crashed before it wrote the last acks down
    socket_world.cut(bob)
    await until(lambda: hub.accounts["bob"].acked["mail"] == 5)
    await alice.send_notification("bob", 5)
    await until(lambda: len(handled) > 5)
    assert handled == list(range(6))


async def test_it_waits_as_long_as_the_hub_asks_for(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    hub.refusing["alice"] = FlowTooMany("it logs in all the time", retry_after=ASKED_SECONDS)
    socket_world.cut(alice)
    await until(lambda: hub.refused_logins["alice"] == 2)
    del hub.refusing["alice"]
    await until(lambda: alice.get_trust_status()["connected"])
    first, second = hub.refused_at
    assert second - first >= ASKED_SECONDS


async def test_it_gets_mail_that_came_while_it_was_away(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.agent("bob")
    got: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.data)

    bob.on_message("notification", note)
    await alice.send_notification("bob", "first")
    await alice.send_notification("bob", "second")
    await bob.connect()
    await until(lambda: len(got) == 2)
    assert got == ["first", "second"]


async def test_it_connects_anew_when_a_place_is_missing(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    got: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.data)

    bob.on_message("notification", note)
    await alice.send_notification("bob", 1)
    await until(lambda: got)
    hub.keep_deliveries = True
    await alice.send_notification("bob", 2)
    await alice.send_notification("bob", 3)
    await hub.tell("bob", hub.delivery("bob", "mail", 3))
    hub.keep_deliveries = False
    await until(lambda: len(got) == 3)
    assert got == [1, 2, 3]
    assert hub.logins["bob"] == 2


async def test_it_acknowledges_places_that_stay_empty(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    got: list[Any] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.data)

    bob.on_message("notification", note)
    hub.keep_deliveries = True
    for n in range(1, 6):
        await alice.send_notification("bob", n)
    account = hub.accounts["bob"]
    account.pushed["mail"] = 5
    await hub.tell("bob", hub.delivery("bob", "mail", 1))
    await hub.tell("bob", Gone("mail", 2, 3, "clock.expired"))
    await hub.tell("bob", Withheld("mail", 4, "identity.revoked"))
    await hub.tell("bob", hub.delivery("bob", "mail", 5))
    await until(lambda: account.acked["mail"] == 5)
    await until(lambda: len(got) == 2)
    assert got == [1, 5]


@pytest.mark.parametrize(
    ("status", "code"), [("busy", "flow.busy"), ("throttled", "policy.throttled")]
)
async def test_it_tries_again_when_told_to(
    socket_world: SocketWorld, status: str, code: str
) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", echo)
    tries: list[str] = []

    def refuse_twice(envelope: Envelope) -> Verdict | None:
        if envelope.sender != "alice":
            return None
        tries.append(envelope.message_id)
        return Verdict(status, code, "", retry_after=0.01) if len(tries) < 3 else None

    hub.script = refuse_twice
    assert (await alice.send_request("bob", "patience")).data == "patience"
    assert len(tries) == 3
    assert len(set(tries)) == 1


async def test_it_gives_up_when_the_next_try_would_come_too_late(
    socket_world: SocketWorld,
) -> None:
    alice = await socket_world.online("alice")
    socket_world.hub.script = lambda envelope: Verdict("busy", "flow.busy", "", retry_after=3600)
    with pytest.raises(FlowBusy) as caught:
        await alice.send_notification("bob", {})
    assert caught.value.retry_after == 3600


async def test_it_raises_what_a_message_was_refused_with(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    denied = Verdict("denied", "policy.denied", "rule 'no secrets' says no")
    answers = iter([denied, Verdict("expired", "", "")])
    socket_world.hub.script = lambda envelope: next(answers)
    with pytest.raises(PolicyDenied) as caught:
        await alice.send_request("bob", {})
    assert caught.value.detail == "rule 'no secrets' says no"
    with pytest.raises(ClockExpired):
        await alice.send_notification("bob", {})


async def test_it_waits_for_what_officers_release(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", echo)
    held: list[Envelope] = []

    def hold(envelope: Envelope) -> Verdict | None:
        if envelope.sender != "alice":
            return None
        held.append(envelope)
        return Verdict("quarantined", "policy.held", "rule 'look first'")

    hub.script = hold
    request = asyncio.create_task(alice.send_request("bob", "hold me"))
    await until(lambda: held)
    await hub.tell("alice", Notice(held[0].message_id, "released"))
    await hub.release(held[0])
    assert (await request).data == "hold me"


async def test_it_says_that_a_message_is_held_when_time_is_up(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    socket_world.hub.script = lambda envelope: Verdict("escalated", "", "rule 'ask two'")
    receipt = await alice.send_notification("bob", {})
    assert receipt.status == "escalated"
    with pytest.raises(PolicyHeld) as caught:
        await alice.send_request("bob", {}, {"timeout": 100})
    assert "ask two" in str(caught.value)


async def test_it_keeps_to_the_window(socket_world: SocketWorld) -> None:
    """At most a window of envelopes is under way; the rest goes when receipts come."""
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    await socket_world.agent("bob")
    seen: list[str] = []
    gate = asyncio.Event()
    answer = hub._take

    async def hold_back(agent: str, frame: Submission) -> Receipt:
        seen.append(frame.message_id)
        if len(seen) == WINDOW:
            await happens(gate, "the test opening the gate")
        return await answer(agent, frame)

    hub._take = hold_back  # type: ignore[method-assign]
    sent = [asyncio.create_task(alice.send_notification("bob", n)) for n in range(WINDOW + 50)]
    await until(lambda: len(seen) == WINDOW)
    await asyncio.sleep(0.05)
    assert len(seen) == WINDOW
    assert alice.get_trust_status()["unreceipted"] == WINDOW + 50
    gate.set()
    receipts = await asyncio.gather(*sent)
    assert {receipt.status for receipt in receipts} == {"accepted"}
    assert len(seen) == len(set(seen)) == WINDOW + 50


async def test_it_acknowledges_only_what_it_has_room_for(socket_world: SocketWorld) -> None:
    """A client whose handlers are stuck takes no more mail, and answers still arrive."""
    hub = socket_world.hub
    alice, bob = (
        await socket_world.online("alice"),
        await socket_world.online("bob", max_handlers=1),
    )
    carol = await socket_world.online("carol")
    carol.on_message("request", echo)
    gate = asyncio.Event()
    handled: list[int] = []

    async def stuck(envelope: ATPEnvelope) -> None:
        await happens(gate, "the test opening the gate")
        handled.append(envelope.data)

    bob.on_message("notification", stuck)
    many = 2 * WINDOW + 100
    await asyncio.gather(*(alice.send_notification("bob", n) for n in range(many)))
    account = hub.accounts["bob"]
    # One runs, a backlog of 256 is taken, and a window more lies there and is not taken.
    await until(lambda: account.book.taken["mail"] == 257)
    assert (await bob.send_request("carol", "still here")).data == "still here"
    assert account.book.taken["mail"] == 257
    assert account.acked["mail"] == 0
    gate.set()
    await until(lambda: len(handled) == many)
    assert handled == list(range(many))


async def test_it_comes_back_after_an_end_that_is_not_final(
    socket_world: SocketWorld,
) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    await hub.end("alice", "session.fenced")
    await until(lambda: hub.logins["alice"] == 2)
    await until(lambda: alice.get_trust_status()["connected"])


def _at_least(things: Sized, count: int) -> bool:
    return len(things) >= count

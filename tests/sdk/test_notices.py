"""Notices that have a place in the stream `answers`."""

from __future__ import annotations

import asyncio
import logging

import pytest
from django.db import connections

from atp import ATPClient, IAgentIdentity, Notice, WebSocketTransport
from atp.agent import notices as notices_module
from atp.errors import ATPError, HandlerFailed, RecipientNoHandler
from atp.wire.words import ANSWERS
from messaging.mail.notices import place_notices
from messaging.models import Delivery
from tests.cast import Player, make_agent
from tests.conftest import LiveHub
from tests.messaging.conftest import until as wait_until
from tests.messaging.dead_mail import refuse
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld
from tests.waits import happens
from tests.wire import Wire


async def test_it_hands_a_notice_on_and_acknowledges_its_place(socket_world: SocketWorld) -> None:
    hub, alice = socket_world.hub, await socket_world.online("alice")
    told: list[Notice] = []
    alice.on_notice(told.append)
    notices = [
        Notice(f"id-{seq}", "refused", "handler.failed", stream=ANSWERS, seq=seq) for seq in (1, 2)
    ]
    hub.accounts["alice"].pushed[ANSWERS] = 2
    for notice in (notices[0], notices[0], notices[1]):  # the hub repeats one
        await hub.tell("alice", notice)
    await until(lambda: hub.accounts["alice"].acked[ANSWERS] == 2)
    assert told == notices
    assert not hub.faults


async def test_it_keeps_the_notices_that_come_before_their_handler(
    socket_world: SocketWorld,
) -> None:
    """They come with the login. A handler that is registered right after it must hear them."""
    hub, alice = socket_world.hub, await socket_world.online("alice")
    notices = [Notice(f"id-{seq}", "expired", stream=ANSWERS, seq=seq) for seq in (1, 2)]
    hub.accounts["alice"].pushed[ANSWERS] = 2
    for notice in notices:
        await hub.tell("alice", notice)
    await until(lambda: hub.accounts["alice"].book.taken[ANSWERS] == 2)
    assert not hub.accounts["alice"].acked[ANSWERS]
    told: list[Notice] = []
    alice.on_notice(told.append)
    assert told == notices
    await until(lambda: hub.accounts["alice"].acked[ANSWERS] == 2)
    alice.on_notice(told.append)
    assert told == notices


async def test_the_hub_keeps_a_notice_until_its_handler_has_ended(
    socket_world: SocketWorld,
) -> None:
    """Over a lost connection, it is handled once; over the end of the client, again."""
    hub, alice = socket_world.hub, await socket_world.online("alice")
    account, notice = hub.accounts["alice"], Notice("id-1", "expired", stream=ANSWERS, seq=1)
    begun: list[Notice] = []
    opened = asyncio.Event()

    async def keep(notice: Notice) -> None:
        begun.append(notice)
        await happens(opened, "the test opening the gate")

    alice.on_notice(keep)
    account.pushed[ANSWERS] = 1
    await hub.tell("alice", notice)
    await until(lambda: begun)
    socket_world.cut(alice)
    await until(lambda: hub.logins["alice"] == 2)
    account.pushed[ANSWERS] = 1
    await hub.tell("alice", notice)
    await until(lambda: account.book.taken[ANSWERS] == 1)
    assert not account.acked[ANSWERS]
    await alice.disconnect()
    await alice.connect()
    account.pushed[ANSWERS] = 1
    await hub.tell("alice", notice)
    await until(lambda: len(begun) == 2)
    assert not account.acked[ANSWERS]
    opened.set()
    await until(lambda: account.acked[ANSWERS] == 1)
    assert len(begun) == 2


async def test_without_a_handler_notices_are_logged_and_done(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices_module, "WAITING_SECONDS", 0.01)
    hub, alice = socket_world.hub, await socket_world.online("alice")
    hub.accounts["alice"].pushed[ANSWERS] = 1
    with caplog.at_level(logging.INFO, "atp"):
        await hub.tell("alice", Notice("id-1", "expired", stream=ANSWERS, seq=1))
        await until(lambda: hub.accounts["alice"].acked[ANSWERS] == 1)
    assert "there is no handler for a notice" in caplog.text
    told: list[Notice] = []
    alice.on_notice(told.append)
    assert not told


async def test_a_handler_that_fails_does_not_keep_the_notice_from_being_done(
    socket_world: SocketWorld,
) -> None:
    hub, alice = socket_world.hub, await socket_world.online("alice")

    def fail(notice: Notice) -> None:
        raise RuntimeError("on purpose")

    alice.on_notice(fail)
    hub.accounts["alice"].pushed[ANSWERS] = 1
    await hub.tell("alice", Notice("id-1", "expired", stream=ANSWERS, seq=1))
    await until(lambda: hub.accounts["alice"].acked[ANSWERS] == 1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("recipient.no_handler", RecipientNoHandler),
        ("handler.failed", HandlerFailed),
        ("booking.closed", HandlerFailed),
        ("signature.invalid", HandlerFailed),  # of the hub's own codes, it may use two
    ],
)
async def test_a_request_that_is_refused_fails_at_once(
    socket_world: SocketWorld, code: str, kind: type[ATPError]
) -> None:
    hub, alice = socket_world.hub, await socket_world.online("alice")
    await socket_world.online("bob")  # it has no handler yet, so it takes nothing
    told: list[Notice] = []
    alice.on_notice(told.append)
    asking = asyncio.create_task(alice.send_request("bob", 1, {"timeout": 3_600_000}))
    await until(lambda: hub.accepted)
    (message_id,) = hub.accepted
    await until(lambda: not alice.get_trust_status()["unreceipted"])
    await hub.tell("alice", Notice(message_id, "refused", code))
    with pytest.raises(kind) as caught:
        await asking
    assert code in str(caught.value)
    assert not told


def test_a_sender_hears_from_the_hub_that_its_message_was_refused(hub: LiveHub) -> None:
    alice = make_agent(name="alice")
    bob = make_agent(name="bob", organisation=alice.organisation)
    with Wire.log_in(hub, bob) as bobs:
        sent, notice = asyncio.run(_send_and_hear(hub, alice, bob, bobs))
    assert (notice.message_id, notice.status, notice.code) == (sent, "refused", "handler.failed")
    assert (notice.stream, notice.seq) == (ANSWERS, 1)


async def _send_and_hear(
    hub: LiveHub, alice: Player, bob: Player, bobs: Wire
) -> tuple[str | None, Notice]:
    transport = WebSocketTransport(hub.ws_url, hub_id=alice.hub, hub_key=alice.hub_key)
    told: list[Notice] = []
    async with ATPClient(IAgentIdentity(alice.id), None, alice.key, transport=transport) as client:
        client.on_notice(told.append)
        receipt = await client.send_notification(bob.id, {"n": 1}, {"notify": True})
        await asyncio.to_thread(_refuse_and_tell, bobs, alice)
        await until(lambda: told)
    return receipt.message_id, told[0]


def _refuse_and_tell(bobs: Wire, alice: Player) -> None:
    refuse(bobs, bobs.mail())
    mine = Delivery.objects.filter(recipient_id=alice.id, state=Delivery.State.NOTICE)

    def is_placed() -> bool:
        place_notices()
        return mine.exists()

    try:
        wait_until(is_placed, "the notice")
    finally:
        connections.close_all()

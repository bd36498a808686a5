"""A message whose id its caller chose is one message, however often it is sent."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest

from atp import ATPClient
from atp.agent.signed import SignedMessages
from atp.errors import FlowTimeout, ReplayConflict
from atp.judging.judgement import Verdict
from atp.trust.envelope import parse_envelope
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World
from tests.waits import LONGEST_SECONDS, happens


async def test_it_sends_the_same_bytes_again(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    heard: list[Any] = []
    bob.on_message("notification", lambda envelope: heard.append(envelope.payload["data"]))
    options = {"message_id": str(uuid.uuid4())}

    first = await alice.send_notification("bob", {"n": 1}, options)
    again = await alice.send_notification("bob", {"n": 1}, options)
    assert (first.message_id, first.entry) == (again.message_id, again.entry)
    assert first.message_id == options["message_id"]
    assert hub.received[first.message_id] == 2  # a fault of the hub if its bytes were others
    await alice.send_notification("bob", "the end")
    await until(lambda: heard == [{"n": 1}, "the end"])


async def test_it_sends_the_same_bytes_after_a_timeout(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    await socket_world.online("bob")
    hub.script = lambda envelope: Verdict("throttled", "flow.throttled", "", retry_after=60)
    options = {"message_id": uuid.uuid4(), "timeout": 50}
    with pytest.raises(Exception, match="throttled"):
        await alice.send_notification("bob", "once", options)
    hub.script = lambda envelope: None
    assert (await alice.send_notification("bob", "once", options)).status == "accepted"


async def test_it_gives_the_answer_of_a_repeated_request(world: World) -> None:
    """The first call is cancelled, the answer comes, and a second call returns it."""
    alice, bob = await world.online("alice"), await world.online("bob")
    asked, go = [], asyncio.Event()

    async def handle(envelope: Any, respond: Any) -> None:
        asked.append(envelope)
        await happens(go, "leave to go on")
        await respond({"sum": 3})

    bob.on_message("request", handle)
    options = {"message_id": str(uuid.uuid4()), "lifetime": 60}
    call = asyncio.create_task(alice.send_request(bob.identity.id, [1, 2], options))
    await until(lambda: asked)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    late: list[Any] = []
    alice.on_message("response", late.append)
    go.set()
    await until(lambda: late)

    assert (await alice.send_request(bob.identity.id, [1, 2], options)).data == {"sum": 3}
    assert len(asked) == 1


async def test_it_waits_for_the_answer_of_a_request_that_is_sent_again(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    asked, go = [], asyncio.Event()

    async def handle(envelope: Any, respond: Any) -> None:
        asked.append(envelope)
        await happens(go, "leave to go on")
        await respond({"sum": 3})

    bob.on_message("request", handle)
    options = {"message_id": str(uuid.uuid4()), "lifetime": 60}
    call = asyncio.create_task(alice.send_request(bob.identity.id, [1, 2], options))
    await until(lambda: asked)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    again = asyncio.create_task(alice.send_request(bob.identity.id, [1, 2], options))
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    go.set()
    assert (await again).data == {"sum": 3}
    assert len(asked) == 1


async def test_rejects_other_content_under_the_same_id(world: World) -> None:
    """The client refuses it by itself: at the hub it would be a violation."""
    alice, bob = await world.online("alice"), await world.online("bob")
    options = {"message_id": str(uuid.uuid4())}
    await alice.send_notification(bob.identity.id, "one", options)
    for change in ({}, {"sensitivity": "internal"}):
        data = "two" if not change else "one"
        with pytest.raises(ReplayConflict, match=options["message_id"]):
            await alice.send_notification(bob.identity.id, data, {**options, **change})


async def test_a_restarted_process_hears_the_state_of_the_first(socket_world: SocketWorld) -> None:
    """It has lost the bytes and signs anew: a conflict, which says that all is well."""
    alice = await socket_world.online("alice")
    await socket_world.online("bob")
    options = {"message_id": str(uuid.uuid4())}
    first = await alice.send_notification("bob", "once", options)
    await alice.disconnect()

    restarted = socket_world.twin(alice)
    with pytest.raises(ReplayConflict) as caught:
        await restarted.send_notification("bob", "once", options)
    assert (caught.value.status, caught.value.entry) == ("accepted", first.entry)
    assert len(socket_world.hub.accounts["bob"].streams["mail"]) == 1
    socket_world.hub.faults.clear()  # that the bytes were others


async def test_rejects_a_second_call_while_the_first_waits(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    arrived = asyncio.Event()

    async def handle(envelope: Any, respond: Any) -> None:
        arrived.set()
        await asyncio.sleep(LONGEST_SECONDS)

    bob.on_message("request", handle)
    options = {"message_id": str(uuid.uuid4())}
    call = asyncio.create_task(alice.send_request("bob", 1, options))
    await happens(arrived, "the handler")
    with pytest.raises(ReplayConflict, match="still waits"):
        await alice.send_request("bob", 1, options)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


# --- What may still arrive -----------------------------------------------------------------------


async def test_a_timeout_says_that_the_message_may_still_arrive(socket_world: SocketWorld) -> None:
    alice = await _with_a_mute_hub(socket_world)
    with pytest.raises(FlowTimeout, match="it may still arrive"):
        await alice.send_notification("bob", "hello", {"timeout": 100})


async def test_a_timeout_says_that_the_message_was_not_sent(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    await socket_world.hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    with pytest.raises(FlowTimeout, match="it was not sent"):
        await alice.send_notification("bob", "hello", {"timeout": 100})
    await socket_world.hub.start()


async def test_a_cancelled_send_says_that_the_message_may_still_arrive(
    socket_world: SocketWorld, caplog: pytest.LogCaptureFixture
) -> None:
    alice = await _with_a_mute_hub(socket_world)
    caplog.set_level(logging.INFO, logger="atp")
    call = asyncio.create_task(alice.send_notification("bob", "hello"))
    await until(lambda: socket_world.hub.received)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    assert "may still arrive" in caught.value.__notes__[0]
    assert "may still arrive" in caplog.text


async def _with_a_mute_hub(world: SocketWorld) -> ATPClient:
    """Return an agent whose hub takes envelopes, and loses the connection before each receipt."""
    alice = await world.online("alice")
    await world.online("bob")
    world.hub.lose_receipts = 1_000
    return alice


# --- What is kept --------------------------------------------------------------------------------


def test_it_keeps_no_more_than_its_limits() -> None:
    kept = SignedMessages(most=2)
    texts = [_unsigned(str(uuid.uuid4())) for _ in range(3)]
    for text in texts:
        kept.message(parse_envelope(text), chosen_id=True, now=0)
    for index, stays in ((2, True), (1, True), (0, False)):  # the oldest was dropped
        again = kept.message(parse_envelope(_anew(texts[index])), chosen_id=True, now=0)
        assert (again.envelope.canonical == texts[index]) is stays


def test_it_forgets_a_message_that_has_expired() -> None:
    kept, text = SignedMessages(), _unsigned(str(uuid.uuid4()))
    expires_at = kept.message(parse_envelope(text), chosen_id=True, now=0).expires_at
    anew = parse_envelope(_anew(text))
    assert kept.message(anew, chosen_id=True, now=expires_at - 1).envelope.canonical == text
    assert kept.message(anew, chosen_id=True, now=expires_at).envelope == anew


def _unsigned(message_id: str, *, salt: str = "AAAAAAAAAAAAAAAAAAAAAA") -> bytes:
    return (
        b'{"ATP":{"agentIdentity":{"id":"alice"},"messageId":"%s","payload":{"data":1,'
        b'"messageType":"notification","salt":"%s","targetAgent":"bob"},'
        b'"timestamp":"2026-01-01T00:00:00.000Z","version":"1.0.0"}}'
    ) % (message_id.encode(), salt.encode())


def _anew(text: bytes) -> bytes:
    return _unsigned(parse_envelope(text).message_id, salt="BBBBBBBBBBBBBBBBBBBBBB")

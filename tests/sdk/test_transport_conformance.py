"""The behaviour that all transports share."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from atp import ATPEnvelope, MessageType
from atp.agent.failures import HandlerFailure
from atp.errors import (
    FlowTimeout,
    HandlerFailed,
    IdentityInvalidId,
    RecipientNoRequest,
    RecipientUnavailable,
    SessionClosed,
    SessionSuperseded,
)
from tests.sdk.waiting import until
from tests.sdk.worlds import World
from tests.waits import happens


async def echo(envelope: ATPEnvelope, respond: Any) -> None:
    await respond({"echo": envelope.payload["data"]})


async def test_it_answers_a_request(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", echo)
    response = await alice.send_request(bob.identity.id, {"n": [1, 2.5, "drei"]})
    assert response.success
    assert response.data == {"echo": {"n": [1, 2.5, "drei"]}}
    assert response.trust_score > 0
    assert response.envelope.agent_identity.id == bob.identity.id


async def test_it_answers_many_at_once(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", echo)
    responses = await asyncio.gather(*(alice.send_request(bob.identity.id, n) for n in range(300)))
    assert [response.data for response in responses] == [{"echo": n} for n in range(300)]


async def test_it_gives_a_plain_function_the_message_too(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message(MessageType.REQUEST, lambda envelope, respond: respond(envelope.data))
    assert (await alice.send_request(bob.identity.id, "plain")).data == "plain"


async def test_it_delivers_notifications_in_order(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob", max_handlers=1)
    got: list[int] = []

    async def note(envelope: ATPEnvelope) -> None:
        got.append(envelope.payload["data"]["n"])

    bob.on_message("notification", note)
    receipts = [await alice.send_notification(bob.identity.id, {"n": n}) for n in range(50)]
    await until(lambda: len(got) == 50)
    assert got == list(range(50))
    assert {receipt.status for receipt in receipts} == {"accepted"}


async def test_it_broadcasts_to_everyone_else(world: World) -> None:
    alice, bob, carol = [await world.online(name) for name in ("alice", "bob", "carol")]
    heard: list[str] = []

    def listen(name: str) -> Any:
        async def handler(envelope: ATPEnvelope) -> None:
            assert envelope.agent_identity.id == alice.identity.id
            heard.append(f"{name} heard {envelope.data}")

        return handler

    for client, name in ((alice, "alice"), (bob, "bob"), (carol, "carol")):
        client.on_message("broadcast", listen(name))
    receipt = await alice.broadcast("hello")
    await until(lambda: len(heard) == 2)
    assert sorted(heard) == ["bob heard hello", "carol heard hello"]
    assert receipt.status == "accepted"


async def test_rejects_an_agent_that_is_not_there(world: World) -> None:
    alice = await world.online("alice")
    with pytest.raises(RecipientUnavailable):
        await alice.send_request("nobody", {})
    with pytest.raises(RecipientUnavailable):
        await alice.send_notification("nobody", {})


async def test_rejects_an_impossible_target_before_sending(world: World) -> None:
    alice = await world.online("alice")
    with pytest.raises(IdentityInvalidId):
        await alice.send_request("Not An Id", {})


async def test_it_tells_the_caller_that_a_handler_failed(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")

    async def fail(envelope: ATPEnvelope, respond: Any) -> None:
        raise RuntimeError("the password is 12345")

    bob.on_message("request", fail)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert "RuntimeError" in str(caught.value)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        {"error": 0.02, "mean": 3},
        {"error": "not today", "code": "handler.failed"},  # what a failure looked like before
    ],
)
async def test_it_takes_no_member_of_the_data_for_a_failure(world: World, data: Any) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(data))
    response = await alice.send_request(bob.identity.id, {})
    assert (response.success, response.error, response.data) == (True, None, data)


async def test_it_tells_of_a_failure_in_a_signed_member(world: World) -> None:
    """Also with a code that this version does not know: it is told, and has no class."""
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(HandlerFailure("no more", "quota")))
    with pytest.raises(HandlerFailed, match="quota: no more"):
        await alice.send_request(bob.identity.id, {})


async def test_rejects_a_second_answer(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    problems: list[Exception] = []

    async def twice(envelope: ATPEnvelope, respond: Any) -> None:
        await respond("first")
        try:
            await respond("second")
        except RecipientNoRequest as problem:
            problems.append(problem)

    bob.on_message("request", twice)
    assert (await alice.send_request(bob.identity.id, {})).data == "first"
    await until(lambda: problems)


async def test_it_gives_up_on_a_request_that_is_not_answered(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    begun = asyncio.Event()

    async def never(envelope: ATPEnvelope, respond: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    bob.on_message("request", never)
    with pytest.raises(FlowTimeout) as caught:
        await alice.send_request(bob.identity.id, {}, {"timeout": 300})
    assert begun.is_set()
    assert re.search(r"the hub accepted it at 20\S+Z, no answer yet", str(caught.value))
    assert "the recipient was connected then" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    assert alice.get_trust_status()["open_requests"] == 0


async def test_it_hands_a_late_answer_to_the_response_handler(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    late: list[Any] = []
    release = asyncio.Event()

    async def slow(envelope: ATPEnvelope, respond: Any) -> None:
        await happens(release, "the test releasing the handler")
        await respond("late")

    async def note(envelope: ATPEnvelope) -> None:
        late.append(envelope.data)

    bob.on_message("request", slow)
    alice.on_message("response", note)
    with pytest.raises(FlowTimeout):
        await alice.send_request(bob.identity.id, {}, {"timeout": 200, "lifetime": 60})
    release.set()
    await until(lambda: late)
    assert late == ["late"]


async def test_it_does_not_lock_up_when_handlers_ask_in_turn(world: World) -> None:
    """300 handlers that each wait for a nested request, with room for far fewer at once."""
    alice = await world.online("alice", max_handlers=8)
    bob = await world.online("bob", max_handlers=8)
    waiting = 0
    all_wait = asyncio.Event()

    async def ask_back(envelope: ATPEnvelope, respond: Any) -> None:
        nested = await bob.send_request(alice.identity.id, envelope.data)
        await respond(nested.data)

    async def double(envelope: ATPEnvelope, respond: Any) -> None:
        await respond(envelope.data * 2)

    async def sleepy(envelope: ATPEnvelope, respond: Any) -> None:
        nonlocal waiting
        waiting += 1
        if waiting >= 8:
            all_wait.set()
        await happens(all_wait, "all handlers waiting at once")
        await double(envelope, respond)

    bob.on_message("request", ask_back)
    alice.on_message("request", sleepy)
    responses = await asyncio.gather(*(alice.send_request(bob.identity.id, n) for n in range(300)))
    assert [response.data for response in responses] == [n * 2 for n in range(300)]


async def test_it_does_not_lock_up_when_the_nesting_comes_back(world: World) -> None:
    """alice's handlers ask bob, whose handlers ask alice again: no place is held while waiting."""
    alice = await world.online("alice", max_handlers=4)
    bob = await world.online("bob", max_handlers=4)

    async def pass_on(envelope: ATPEnvelope, respond: Any) -> None:
        me, other = (alice, bob) if envelope.data["at"] == alice.identity.id else (bob, alice)
        hops = envelope.data["hops"]
        if hops:
            there = other.identity.id
            answer = await me.send_request(there, {"at": there, "hops": hops - 1})
            await respond(answer.data + 1)
        else:
            await respond(0)

    alice.on_message("request", pass_on)
    bob.on_message("request", pass_on)
    there = bob.identity.id
    asked = [alice.send_request(there, {"at": there, "hops": 5}) for _ in range(20)]
    assert [response.data for response in await asyncio.gather(*asked)] == [5] * 20


async def test_it_connects_again_after_a_cut(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", echo)
    first = alice.get_trust_status()["session"]
    world.cut(alice)
    await until(lambda: alice.get_trust_status()["session"] != first)
    assert (await alice.send_request(bob.identity.id, 1)).data == {"echo": 1}


async def test_it_yields_to_a_newer_login_for_good(world: World) -> None:
    older = await world.online("alice")
    older.on_message("request", echo)
    newer = world.twin(older)
    newer.on_message("request", echo)
    await newer.connect()
    await until(lambda: older.get_trust_status()["ended"])
    assert older.get_trust_status()["ended"] == "session.superseded"
    with pytest.raises(SessionSuperseded, match="send_only=True"):
        await older.send_notification("anybody", {})
    assert newer.get_trust_status()["connected"]


async def test_it_connects_by_itself_for_a_message(world: World) -> None:
    bob, alice = await world.online("bob"), await world.agent("alice")
    bob.on_message("request", echo)
    responses = await asyncio.gather(*(alice.send_request(bob.identity.id, n) for n in range(5)))
    assert [response.data for response in responses] == [{"echo": n} for n in range(5)]


async def test_it_fails_what_is_open_when_disconnecting(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    begun = asyncio.Event()

    async def never(envelope: ATPEnvelope, respond: Any) -> None:
        begun.set()
        await asyncio.sleep(60)

    bob.on_message("request", never)
    request = asyncio.create_task(alice.send_request(bob.identity.id, {}))
    await happens(begun, "the handler having begun")
    await alice.disconnect()
    with pytest.raises(SessionClosed):
        await request
    assert not alice.get_trust_status()["connected"]


async def test_it_lets_a_handler_finish_before_disconnecting(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    begun = asyncio.Event()

    async def slow(envelope: ATPEnvelope, respond: Any) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        await respond("done")

    bob.on_message("request", slow)
    request = asyncio.create_task(alice.send_request(bob.identity.id, {}))
    await happens(begun, "the handler having begun")
    await bob.disconnect()
    assert (await request).data == "done"


async def test_it_can_be_used_again_after_disconnecting(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", echo)
    await bob.disconnect()
    await bob.connect()
    assert (await alice.send_request(bob.identity.id, 1)).data == {"echo": 1}


async def test_it_shows_the_hubs_word_on_the_sender(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    seen: list[ATPEnvelope] = []

    async def look(envelope: ATPEnvelope, respond: Any) -> None:
        seen.append(envelope)
        await respond(None)

    bob.on_message("request", look)
    await alice.send_request(bob.identity.id, {})
    status = alice.get_trust_status()
    assert seen[0].get_trust_score() == status["score"]
    assert seen[0].meets_trust_threshold(status["score"])
    assert not seen[0].meets_trust_threshold(status["score"] + 1)
    assert status["level"] == "verified"

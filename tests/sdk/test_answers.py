"""How a request handler answers, and what its caller hears if it does not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from atp import ATPEnvelope, Reject, Retry
from atp.agent import handler_table
from atp.errors import (
    HandlerFailed,
    MalformedDocument,
    RecipientNoHandler,
    RecipientNoRequest,
)
from tests.sdk.waiting import until
from tests.sdk.worlds import World
from tests.waits import happens


def returns_plainly(envelope: ATPEnvelope, respond: Any) -> Any:
    return envelope.data + 1


async def returns(envelope: ATPEnvelope, respond: Any) -> Any:
    return envelope.data + 1


def returns_without_respond(envelope: ATPEnvelope) -> Any:
    return envelope.data + 1


def calls_respond_plainly(envelope: ATPEnvelope, respond: Any) -> None:
    respond(envelope.data + 1)


async def forgets_to_await(envelope: ATPEnvelope, respond: Any) -> None:
    respond(envelope.data + 1)


async def returns_respond(envelope: ATPEnvelope, respond: Any) -> Any:
    return respond(envelope.data + 1)


async def answers_and_returns(envelope: ATPEnvelope, respond: Any) -> Any:
    await respond(envelope.data + 1)
    return "another"


ANSWERING = [
    returns_plainly,
    returns,
    returns_without_respond,
    calls_respond_plainly,
    forgets_to_await,
    returns_respond,
    answers_and_returns,
]


@pytest.mark.parametrize("handler", ANSWERING)
async def test_it_takes_every_form_of_an_answer(world: World, handler: Any) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", handler)
    assert (await alice.send_request(bob.identity.id, 1)).data == 2


async def test_it_answers_with_nothing_by_respond(world: World) -> None:
    """A value of `None` is no answer, but `respond(None)` is one."""
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(None))
    response = await alice.send_request(bob.identity.id, 1)
    assert response.success
    assert response.data is None


@pytest.mark.parametrize("is_plain", [True, False])
async def test_it_tells_at_once_that_a_handler_did_not_answer(
    world: World, caplog: pytest.LogCaptureFixture, is_plain: bool
) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")

    def plain(envelope: ATPEnvelope, respond: Any) -> None:
        return None

    async def other(envelope: ATPEnvelope, respond: Any) -> None:
        return None

    bob.on_message("request", plain if is_plain else other)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert str(caught.value) == "handler.failed: returned without answering"
    assert "returned without answering" in caplog.text


def calls_respond_twice(envelope: ATPEnvelope, respond: Any) -> None:
    respond("first")
    respond("second")


def calls_respond_and_returns(envelope: ATPEnvelope, respond: Any) -> str:
    respond("first")
    return "second"


async def hides_a_second_answer(envelope: ATPEnvelope, respond: Any) -> None:
    respond("first")
    with suppress(RecipientNoRequest):
        respond("second")


@pytest.mark.parametrize(
    "handler", [calls_respond_twice, calls_respond_and_returns, hides_a_second_answer]
)
async def test_it_tells_at_once_that_a_handler_answered_twice(world: World, handler: Any) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", handler)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert str(caught.value) == "handler.failed: answered twice"


async def test_it_logs_a_second_answer_where_the_caller_has_the_first(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", answers_and_returns)
    assert (await alice.send_request(bob.identity.id, 1)).data == 2
    await until(lambda: "answered twice" in caplog.text)


async def test_it_tells_the_caller_that_an_answer_cannot_be_sent(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope: {1, 2})
    with pytest.raises(HandlerFailed):
        await alice.send_request(bob.identity.id, {})


async def test_it_lets_a_task_answer_later(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    parked: list[Any] = []

    async def park(envelope: ATPEnvelope, respond: Any) -> None:
        respond.later()
        parked.append(respond)

    bob.on_message("request", park, max_running=2)
    first = asyncio.create_task(alice.send_request(bob.identity.id, {}))
    second = asyncio.create_task(alice.send_request(bob.identity.id, {}))
    await until(lambda: len(parked) == 2)
    await parked[0]("awaited")
    parked[1]("from a callback")
    answers = [response.data for response in await asyncio.gather(first, second)]
    assert sorted(answers) == ["awaited", "from a callback"]
    await until(lambda: bob.get_trust_status()["handlers"] == 0)


async def test_it_rejects_a_request_with_a_code(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    refusals = iter([("booking.closed", "come back on Monday"), ("policy.denied", "not yours")])

    async def refuse(envelope: ATPEnvelope, respond: Any) -> None:
        raise Reject(*next(refusals))

    bob.on_message("request", refuse)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert (caught.value.code, caught.value.detail) == ("booking.closed", "come back on Monday")
    # The other side can't pass its word off as the hub's.
    with pytest.raises(HandlerFailed) as forged:
        await alice.send_request(bob.identity.id, {})
    assert str(forged.value) == "handler.failed: policy.denied: not yours"


async def test_it_tries_a_request_again_while_there_is_time(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    attempts: list[int] = []

    async def not_yet(envelope: ATPEnvelope, respond: Any) -> Any:
        assert envelope.delivery is not None
        attempts.append(envelope.delivery.attempt)
        if len(attempts) < 3:
            raise Retry(after=0)
        return "at last"

    bob.on_message("request", not_yet)
    assert (await alice.send_request(bob.identity.id, {})).data == "at last"
    assert attempts == [1, 2, 3]


async def test_it_fails_a_request_whose_retry_would_come_too_late(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")

    async def not_today(envelope: ATPEnvelope, respond: Any) -> Any:
        raise Retry(after=3600)

    bob.on_message("request", not_today)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert "asked for a retry" in str(caught.value)


@pytest.mark.parametrize("wrong", [-1, 3601, "soon", float("nan")])
def test_rejects_an_impossible_pause(wrong: Any) -> None:
    with pytest.raises(MalformedDocument):
        Retry(after=wrong)


@pytest.mark.parametrize("wrong", ["", "Booking closed", "x" * 41, None])
def test_rejects_what_is_no_code(wrong: Any) -> None:
    with pytest.raises(MalformedDocument):
        Reject(wrong)


async def test_it_tells_the_caller_that_there_is_no_handler(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_table, "GRACE_SECONDS", 0.1)
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("notification", lambda envelope: None)
    with pytest.raises(RecipientNoHandler) as caught:
        await alice.send_request(bob.identity.id, {})
    assert str(caught.value) == "recipient.no_handler: this agent has no handler for requests"


async def test_it_keeps_a_request_for_a_handler_that_comes_soon(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    asked = asyncio.create_task(alice.send_request(bob.identity.id, 1))
    await until(lambda: alice.get_trust_status()["unreceipted"] == 0)
    bob.on_message("notification", lambda envelope: None)
    await asyncio.sleep(0)
    bob.on_message("request", returns)
    assert (await asked).data == 2


async def test_it_cancels_no_request_when_a_task_of_its_handler_is_cancelled(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    never = asyncio.Event()

    async def trips(envelope: ATPEnvelope, respond: Any) -> None:
        task = asyncio.create_task(happens(never, "nothing"))
        task.cancel()
        await task

    bob.on_message("request", trips)
    with pytest.raises(HandlerFailed) as caught:
        await alice.send_request(bob.identity.id, {})
    assert "was cancelled" in str(caught.value)

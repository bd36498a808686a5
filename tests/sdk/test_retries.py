"""Messages whose handlers fail: they are handled again, alone, and refused in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atp import ATPEnvelope, Reject, Retry
from atp.agent.mail import MOST_ATTEMPTS
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld, World
from tests.waits import happens

SOON_SECONDS = 0.002  # the first pause; with it, all five attempts take a fifth of a second


def attempt_of(envelope: ATPEnvelope) -> int:
    assert envelope.delivery is not None
    return envelope.delivery.attempt


async def test_it_handles_again_what_failed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    alice = await world.online("alice")
    bob = await world.online("bob", retry_seconds=SOON_SECONDS)
    attempts: list[int] = []

    async def fail_four_times(envelope: ATPEnvelope) -> None:
        attempts.append(attempt_of(envelope))
        if len(attempts) < 5:
            raise RuntimeError("not yet")

    bob.on_message("notification", fail_four_times)
    await alice.send_notification(bob.identity.id, "once more")
    await until(lambda: len(attempts) == 5)
    assert attempts == [1, 2, 3, 4, 5]
    await until(lambda: bob.get_trust_status()["handlers"] == 0)
    assert "refused" not in caplog.text


@pytest.mark.parametrize("kind", ["notification", "broadcast"])
async def test_it_refuses_what_failed_five_times(socket_world: SocketWorld, kind: str) -> None:
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob", retry_seconds=SOON_SECONDS)
    account = socket_world.hub.accounts["bob"]
    attempts: list[int] = []

    def fail(envelope: ATPEnvelope) -> None:
        attempts.append(attempt_of(envelope))
        raise RuntimeError("never")

    bob.on_message(kind, fail)
    if kind == "notification":
        await alice.send_notification("bob", "hopeless")
    else:
        await alice.broadcast("hopeless")
    await until(lambda: account.acked["mail"] == 1)
    assert attempts == [1, 2, 3, 4, 5]
    assert account.refused == [("mail", 1, "handler.failed")]
    told = [ack.retry for ack in account.book.acks if ack.retry]
    assert told == [((1, failures),) for failures in (1, 2, 3, 4)]
    # Officers send it again: the attempts begin anew.
    await socket_world.hub.redeliver("bob", "mail", 1)
    await until(lambda: account.acked["mail"] == 2)
    assert attempts[5:] == [1, 2, 3, 4, 5]


async def test_it_does_what_a_handler_asks_for(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob", retry_seconds=3600.0)
    account = socket_world.hub.accounts["bob"]
    attempts: list[Any] = []

    async def choose(envelope: ATPEnvelope) -> None:
        attempts.append(envelope.data)
        if envelope.data == "reject":
            raise Reject("booking.closed", "come back on Monday")
        if attempt_of(envelope) == 1:
            raise Retry(after=0)

    bob.on_message("notification", choose)
    await alice.send_notification("bob", "reject")
    await alice.send_notification("bob", "retry")
    await until(lambda: account.acked["mail"] == 2)
    assert attempts == ["reject", "retry", "retry"]
    assert account.refused == [("mail", 1, "booking.closed")]


async def test_it_does_not_handle_a_failed_request_again(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob", retry_seconds=SOON_SECONDS)
    attempts: list[int] = []

    def fail(envelope: ATPEnvelope, respond: Any) -> None:
        attempts.append(attempt_of(envelope))
        raise RuntimeError("never")

    bob.on_message("request", fail)
    with pytest.raises(Exception, match=r"handler\.failed"):
        await alice.send_request("bob", {})
    account = socket_world.hub.accounts["bob"]
    await until(lambda: account.acked["mail"] == 1)
    assert attempts == [1]
    assert account.refused == []


async def test_a_second_attempt_runs_alone(socket_world: SocketWorld) -> None:
    """No other handler runs or begins beside it, under traffic that never stops by itself."""
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob", retry_seconds=SOON_SECONDS)
    account = socket_world.hub.accounts["bob"]
    running: set[Any] = set()
    beside: list[Any] = []
    handled = 0
    alone = asyncio.Event()

    async def handle(envelope: ATPEnvelope) -> None:
        nonlocal handled
        running.add(envelope.data)
        if envelope.data == "culprit":
            if attempt_of(envelope) == 1:
                running.discard("culprit")
                raise RuntimeError("the first attempt fails")
            beside.append(set(running))
            await asyncio.sleep(0.05)
            beside.append(set(running))
            alone.set()
        else:
            await asyncio.sleep(0.002)
        running.discard(envelope.data)
        handled += 1

    bob.on_message("notification", handle)
    bob.on_message("broadcast", handle)
    traffic = asyncio.create_task(_keep_sending(alice, alone))
    await alice.send_notification("bob", "culprit")
    await happens(alone, "the second attempt")
    sent = await traffic
    await until(lambda: handled == sent + 1)
    assert beside == [{"culprit"}, {"culprit"}]
    await until(lambda: not account.book.begun)


async def test_what_runs_alone_may_ask_others_which_ask_back(socket_world: SocketWorld) -> None:
    """A request may begin while the one that runs alone waits for an answer."""
    alice = await socket_world.online("alice")
    bob = await socket_world.online("bob", retry_seconds=SOON_SECONDS)
    carol = await socket_world.online("carol")
    done: list[Any] = []

    async def ask_carol(envelope: ATPEnvelope) -> None:
        if attempt_of(envelope) == 1:
            raise RuntimeError("the first attempt fails")
        done.append((await bob.send_request("carol", {})).data)

    async def ask_bob(envelope: ATPEnvelope, respond: Any) -> Any:
        return (await carol.send_request("bob", "from carol")).data

    bob.on_message("notification", ask_carol)
    bob.on_message("request", lambda envelope: f"{envelope.data} to bob")
    carol.on_message("request", ask_bob)
    await alice.send_notification("bob", {})
    await until(lambda: done)
    assert done == ["from carol to bob"]


async def test_a_crash_charges_only_what_ran_alone(socket_world: SocketWorld) -> None:
    """The end of a process charges the three handlers that ran, and the next time only one."""
    hub = socket_world.hub
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    account = hub.accounts["bob"]
    never = asyncio.Event()

    async def hang(envelope: ATPEnvelope) -> None:
        await happens(never, "nothing", seconds=60)

    bob.on_message("notification", hang)
    for n in range(3):
        await alice.send_notification("bob", n)
    await until(lambda: len(account.book.begun) == 3)
    account.book.break_off()  # as when the process is killed
    await bob.disconnect(timeout_seconds=0)
    assert set(account.book.failures.values()) == {1}
    again = socket_world.twin(bob)
    again.on_message("notification", hang)
    await again.connect()
    await until(lambda: account.book.begun)
    await asyncio.sleep(0.05)
    assert account.book.begun == {("mail", 1)}


async def test_messages_that_fail_take_at_most_half_of_the_time(socket_world: SocketWorld) -> None:
    """A sender of 20 messages on which the handler fails late; another one is served meanwhile."""
    alice, mallory = await socket_world.online("alice"), await socket_world.online("mallory")
    bob = await socket_world.online("bob", retry_seconds=SOON_SECONDS)
    account = socket_world.hub.accounts["bob"]
    runs: list[int] = []

    async def fail(envelope: ATPEnvelope) -> None:
        if attempt_of(envelope) > 1:
            runs.append(envelope.data)
        await asyncio.sleep(0.05)
        raise RuntimeError("never")

    bob.on_message("notification", fail)
    bob.on_message("request", lambda envelope: len(runs))
    await asyncio.gather(*(mallory.send_notification("bob", n) for n in range(20)))
    await until(lambda: runs)
    before = len(runs)
    answers = await asyncio.gather(*(alice.send_request("bob", {}) for _ in range(10)))
    assert max(answer.data for answer in answers) - before <= 2
    await until(lambda: account.acked["mail"] == 30)
    assert len(runs) == 20 * (MOST_ATTEMPTS - 1)


async def _keep_sending(alice: Any, until_set: asyncio.Event) -> int:
    sent = 0
    while not until_set.is_set():
        await asyncio.gather(*(alice.send_notification("bob", sent + n) for n in range(20)))
        sent += 20
    return sent

"""Order and concurrency of handlers, by type."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from atp import ATPEnvelope
from atp.agent.turns import CYCLE_SECONDS, HOLD_SECONDS, HandlerRule, Job, JobQueue
from atp.errors import MalformedDocument
from atp.types import MessageType
from tests.sdk.waiting import until
from tests.sdk.worlds import World
from tests.waits import happens

NOTE, ASK = MessageType.NOTIFICATION, MessageType.REQUEST


async def test_it_keeps_the_order_of_each_sender(world: World) -> None:
    senders = [await world.online(name) for name in ("alice", "carol")]
    bob = await world.online("bob", retry_seconds=0.002)
    handled: defaultdict[str, list[int]] = defaultdict(list)
    running: defaultdict[str, int] = defaultdict(int)
    together: set[int] = set()

    async def handle(envelope: ATPEnvelope) -> None:
        sender, n = envelope.agent_identity.id, envelope.data
        running[sender] += 1
        together.add(running[sender])
        assert envelope.delivery is not None
        try:
            await asyncio.sleep(0.001 * (n % 3))
            if n == 5 and envelope.delivery.attempt < 3:
                raise RuntimeError("the later ones wait for it")
        finally:
            running[sender] -= 1
        handled[sender].append(n)

    bob.on_message("notification", handle, ordered="sender")
    for n in range(20):
        for sender in senders:
            await sender.send_notification(bob.identity.id, n)
    await until(lambda: all(len(handled[client.identity.id]) == 20 for client in senders))
    assert dict(handled) == {client.identity.id: list(range(20)) for client in senders}
    assert together == {1}


async def test_one_sender_does_not_stop_another(world: World) -> None:
    alice, carol = await world.online("alice"), await world.online("carol")
    bob, gate = await world.online("bob"), asyncio.Event()
    handled: list[Any] = []

    async def handle(envelope: ATPEnvelope) -> None:
        if envelope.agent_identity.id == alice.identity.id:
            await happens(gate, "the test opening the gate")
        handled.append(envelope.data)

    bob.on_message("notification", handle, ordered="sender")
    for n in range(3):
        await alice.send_notification(bob.identity.id, f"alice {n}")
        await carol.send_notification(bob.identity.id, f"carol {n}")
    await until(lambda: len(handled) == 3)
    assert handled == ["carol 0", "carol 1", "carol 2"]
    gate.set()
    await until(lambda: len(handled) == 6)
    assert handled[3:] == ["alice 0", "alice 1", "alice 2"]


async def test_it_limits_each_type_by_itself(world: World) -> None:
    alice, bob = await world.online("alice"), await world.online("bob")
    gate = asyncio.Event()
    running = most = 0

    async def slow(envelope: ATPEnvelope) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await happens(gate, "the test opening the gate")
        running -= 1

    bob.on_message("notification", slow, max_running=2)
    bob.on_message("request", lambda envelope: envelope.data)
    for n in range(10):
        await alice.send_notification(bob.identity.id, n)
    await until(lambda: running == 2)
    assert (await alice.send_request(bob.identity.id, "not in the way")).data == "not in the way"
    gate.set()
    await until(lambda: bob.get_trust_status()["handlers"] == 0 and running == 0)
    assert most == 2


@pytest.mark.parametrize("wrong", [{"ordered": "topic"}, {"max_running": 0}, {"max_running": True}])
async def test_rejects_a_rule_that_does_not_exist(world: World, wrong: Any) -> None:
    bob = await world.agent("bob")
    with pytest.raises(MalformedDocument):
        bob.on_message("notification", lambda envelope: None, **wrong)


# --- The turns, without a clock ---


async def nothing() -> None:
    return None


def job(kind: MessageType = NOTE, sender: str = "alice", *, alone: bool = False) -> Job:
    return Job(kind, sender, nothing, is_alone=lambda: alone)


def begun(
    turns: JobQueue, *, alive: int = 0, waits: bool = False, ticks: float = 0.0
) -> Job | None:
    return turns.next(alive=alive, alone_waits=waits, ticks=ticks)


def test_what_runs_alone_waits_for_its_moment_and_gets_it() -> None:
    turns, usual, alone = JobQueue(), job(), job(alone=True)
    for one in (alone, usual):
        turns.submit(one)
    assert begun(turns, alive=1) is None  # a hold: nothing begins
    assert turns.hold_end(0.0) == HOLD_SECONDS
    assert begun(turns, alive=1, ticks=HOLD_SECONDS) is usual  # and its end
    turns.submit(job())
    assert begun(turns, alive=1, ticks=CYCLE_SECONDS) is None
    assert begun(turns, alive=0, ticks=CYCLE_SECONDS) is alone
    assert begun(turns, alive=1, ticks=CYCLE_SECONDS) is None  # nothing begins beside it
    turns.ended(alone, CYCLE_SECONDS)
    assert begun(turns, ticks=CYCLE_SECONDS) is not None


def test_others_get_as_long_as_what_ran_alone() -> None:
    turns, first, second, usual = JobQueue(), job(alone=True), job(alone=True), job()
    for one in (first, second, usual):
        turns.submit(one)
    assert begun(turns) is first
    turns.ended(first, 30.0)
    assert begun(turns, ticks=30.0) is usual
    turns.ended(usual, 31.0)
    assert begun(turns, ticks=31.0) is None  # though nothing else waits
    assert turns.hold_end(31.0) == 60.0
    turns.submit(late := job())
    assert begun(turns, ticks=59.0) is late
    assert begun(turns, alive=1, ticks=60.0) is None  # the next moment without others
    assert begun(turns, ticks=61.0) is second


def test_only_requests_begin_beside_what_runs_alone_and_waits() -> None:
    turns, alone, note, ask = JobQueue(), job(alone=True), job(), job(ASK)
    for one in (alone, note, ask):
        turns.submit(one)
    assert begun(turns) is alone
    assert begun(turns, alive=1) is None
    assert begun(turns, alive=1, waits=True) is ask
    assert begun(turns, alive=2, waits=True) is None


def ordered() -> JobQueue:
    turns = JobQueue()
    turns.set_rule(NOTE, HandlerRule(ordered=True))
    return turns


def test_an_ordered_one_waits_for_an_earlier_one_that_can_not_begin_yet() -> None:
    turns, ready = ordered(), False
    first = Job(NOTE, "alice", nothing, may_begin=lambda: ready)
    second, other = job(), job(sender="carol")
    for one in (first, second, other):
        turns.submit(one)
    assert begun(turns) is other
    assert begun(turns) is None
    ready = True
    assert begun(turns) is first
    turns.ended(first, 0.0)
    assert begun(turns) is None  # it will be tried again
    turns.submit(first)
    assert begun(turns) is first
    turns.ended(first, 0.0)
    turns.over(first)
    assert begun(turns) is second


def test_a_turn_goes_on_from_what_is_over() -> None:
    """Of the first three, one waits and one is behind it, when the hub takes all three back."""
    turns, gone = ordered(), False
    for _ in range(3):
        turns.submit(Job(NOTE, "alice", nothing, is_over=lambda: gone))
    last = job()
    turns.submit(last)
    gone = True
    assert begun(turns) is last


def test_a_turn_goes_on_after_the_queue_was_dropped() -> None:
    turns, gone = ordered(), False
    for _ in range(2):
        turns.submit(Job(NOTE, "alice", nothing, is_over=lambda: gone))
    turns.clear()
    gone = True
    later = job()
    turns.submit(later)
    assert begun(turns) is later


def test_an_order_that_is_set_later_counts_for_what_waits() -> None:
    """Mail can arrive before its handler is registered."""
    turns, first, second = JobQueue(), job(), job()
    turns.submit(first)
    turns.submit(second)
    turns.set_rule(NOTE, HandlerRule(ordered=True))
    assert begun(turns) is first
    assert begun(turns) is None
    turns.set_rule(NOTE, HandlerRule())
    assert begun(turns) is second


def test_it_tells_each_job_once_that_others_go_first() -> None:
    turns = JobQueue()
    turns.set_rule(NOTE, HandlerRule(max_running=1))
    told: list[int] = []
    jobs = [Job(NOTE, "alice", nothing, pass_over=lambda n=n: told.append(n)) for n in range(3)]  # type: ignore[misc]
    for one in jobs:
        turns.submit(one)
    ask = job(ASK)
    turns.submit(ask)
    assert [begun(turns) for _ in range(3)] == [jobs[0], ask, None]
    assert sorted(told) == [1, 2]


async def test_a_sender_that_stops_its_own_mail_stops_nobody_else(world: World) -> None:
    """An attack: more than the client takes, behind a message that does not end."""
    mallory, alice = await world.online("mallory"), await world.online("alice")
    bob, gate = await world.online("bob"), asyncio.Event()
    heard: list[Any] = []

    async def handle(envelope: ATPEnvelope) -> None:
        if envelope.agent_identity.id == mallory.identity.id:
            await happens(gate, "the test opening the gate")
        heard.append(envelope.data)

    bob.on_message("notification", handle, ordered="sender")
    flood = [mallory.send_notification(bob.identity.id, n) for n in range(600)]
    await asyncio.gather(*flood)
    await alice.send_notification(bob.identity.id, "from alice")
    await until(lambda: heard)
    assert heard == ["from alice"]
    gate.set()
    await until(lambda: len(heard) == 601)
    assert heard[1:] == list(range(600))


async def test_a_type_that_is_full_stops_no_other(world: World) -> None:
    mallory, bob = await world.online("mallory"), await world.online("bob")
    gate = asyncio.Event()
    handled: list[Any] = []

    async def handle(envelope: ATPEnvelope) -> None:
        await happens(gate, "the test opening the gate")
        handled.append(envelope.data)

    bob.on_message("notification", handle, max_running=1)
    bob.on_message("request", lambda envelope: envelope.data)
    await asyncio.gather(*(mallory.send_notification(bob.identity.id, n) for n in range(600)))
    assert (await mallory.send_request(bob.identity.id, "answered")).data == "answered"
    gate.set()
    await until(lambda: len(handled) == 600)

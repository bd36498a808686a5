"""Connections that are there and dead: whoever waits on them gives up, and the hub heals by itself.

A firewall or NAT that forgot its connections tells neither side. Bytes go out and nothing comes.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from atp import ATPClient
from tests.crash.proxy import Proxy
from tests.processes import free_port, start_hub
from tests.production.fleet import Fleet, wait_until
from tests.production.load import assert_nothing_has_a_gap
from tests.production.outages.conftest import World

HEALED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Far:
    """One more node and worker of the hub, whose engines are behind proxies."""

    fleet: Fleet
    postgres: Proxy
    redis: Proxy
    broker: Proxy


@pytest.fixture
def far(world: World, fleet: Fleet) -> Iterator[Far]:
    with (
        Proxy([world.postgres.port], seed=1) as postgres,
        Proxy([world.redis.port], seed=1) as redis,
        Proxy([world.redis.port], seed=1) as broker,
    ):
        env = {
            **fleet.env,
            "ATP_DATABASE_URL": f"postgres://postgres@127.0.0.1:{postgres.port}/postgres",
            "ATP_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "ATP_BROKER_URL": f"redis://127.0.0.1:{broker.port}/2",
        }
        there = Fleet(fleet.folder, env)
        try:
            there.nodes.append(start_hub(there.folder, free_port(), env))
            there.start_worker("far")
            yield Far(there, postgres, redis, broker)
        finally:
            there.stop()


async def heals(far: Far, agents: list[Path], fault: Callable[[], None]) -> None:
    """What is sent after the fault is accepted soon; no process of the hub is started again."""
    async with ATPClient.from_identity_file(far.fleet.at(0, agents[2])) as client:
        sent = await client.send_notification(agents[1].stem, {"n": 0})
        assert sent.status == "accepted"
        fault()
        async with asyncio.timeout(HEALED_SECONDS):
            sent = await client.send_notification(agents[1].stem, {"n": 1})
        assert sent.status == "accepted"
    assert far.fleet.nodes[0].is_running()
    assert_nothing_has_a_gap(far.fleet)


async def test_it_gets_over_connections_to_postgresql_that_were_forgotten(
    far: Far, agents: list[Path]
) -> None:
    await heals(far, agents, far.postgres.forget)


async def test_it_gets_over_connections_to_redis_that_were_forgotten(
    far: Far, agents: list[Path]
) -> None:
    """The node's subscription among them: without it no receipt comes back from the workers."""
    await heals(far, agents, far.redis.forget)


async def test_it_gets_over_connections_to_the_broker_that_were_forgotten(
    far: Far, agents: list[Path]
) -> None:
    """The workers' as well: they wait for tasks, and nothing comes."""
    await heals(far, agents, far.broker.forget)


async def test_a_worker_that_can_not_acknowledge_a_task_takes_the_next(
    far: Far, agents: list[Path]
) -> None:
    """Its connection goes mute while it works; a worker has only so many tasks at a time."""
    with stopping_worker(far, "after_commit:2") as go_on:
        async with ATPClient.from_identity_file(far.fleet.at(0, agents[2])) as client:
            await client.send_notification(agents[1].stem, {"n": 0})
            sending = asyncio.create_task(client.send_notification(agents[1].stem, {"n": 1}))
            await asyncio.to_thread(go_on, far.broker.forget)
            async with asyncio.timeout(HEALED_SECONDS):
                assert (await sending).status == "accepted"
                sent = await client.send_notification(agents[1].stem, {"n": 2})
            assert sent.status == "accepted"
    assert_nothing_has_a_gap(far.fleet)


async def test_a_worker_gives_up_a_task_that_the_database_does_not_answer(
    far: Far, agents: list[Path]
) -> None:
    """While it waits, it judges nothing; a broadcast is given out by a task of its own."""
    with stopping_worker(far, "half_way_through_broadcast") as go_on:
        async with ATPClient.from_identity_file(far.fleet.at(0, agents[2])) as client:
            await client.broadcast({"n": 0})
            await asyncio.to_thread(go_on, far.postgres.forget)
            async with asyncio.timeout(HEALED_SECONDS):
                sent = await client.send_notification(agents[1].stem, {"n": 1})
            assert sent.status == "accepted"
    assert_nothing_has_a_gap(far.fleet)


@contextmanager
def stopping_worker(far: Far, failpoint: str) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have a worker stop at a failpoint; yield what waits for that, makes a fault and wakes it."""
    far.fleet.kill_worker("far")
    far.fleet.start_worker("stopping", failpoints=f"stop@{failpoint}")
    log = far.fleet.folder.parent / "stopping.log"

    def go_on(fault: Callable[[], None]) -> None:
        wait_until(lambda: "this process stops here" in log.read_text())
        fault()
        os.killpg(far.fleet.workers["stopping"].pid, signal.SIGCONT)

    try:
        yield go_on
    finally:
        far.fleet.kill_worker("stopping")
        log.unlink()


async def test_health_tells_of_a_subscription_that_says_nothing(far: Far) -> None:
    def layer() -> str:
        answer = httpx.get(f"{far.fleet.nodes[0].url}/api/v1/health", timeout=20)
        return str(answer.json()["parts"]["layer"]["status"])

    def is_down() -> bool:
        far.redis.forget()  # only what is connected now: the probe that follows gets its answer
        return layer() == "down"

    await asyncio.to_thread(wait_until, lambda: layer() == "ok")
    await asyncio.to_thread(wait_until, is_down)
    await asyncio.to_thread(wait_until, lambda: layer() == "ok")

"""Connections that are there and dead: whoever waits on them gives up, and the hub heals by itself.

A firewall or NAT that forgot its connections tells neither side. Bytes go out and nothing comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
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


@pytest.fixture
def far(world: World, fleet: Fleet) -> Iterator[Far]:
    with (
        Proxy([world.postgres.port], seed=1) as postgres,
        Proxy([world.redis.port], seed=1) as redis,
    ):
        env = {
            **fleet.env,
            "ATP_DATABASE_URL": f"postgres://postgres@127.0.0.1:{postgres.port}/postgres",
            "ATP_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            "ATP_BROKER_URL": world.redis.database(2),
        }
        there = Fleet(fleet.folder, env)
        try:
            there.nodes.append(start_hub(there.folder, free_port(), env))
            there.start_worker("far")
            yield Far(there, postgres, redis)
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


async def test_health_tells_of_a_subscription_that_says_nothing(far: Far) -> None:
    def layer() -> str:
        answer = httpx.get(f"{far.fleet.nodes[0].url}/api/v1/health", timeout=20)
        return str(answer.json()["parts"]["layer"]["status"])

    await asyncio.to_thread(wait_until, lambda: layer() == "ok")
    far.redis.forget()  # only what is connected now: a probe gets its answer
    await asyncio.to_thread(wait_until, lambda: layer() == "down")
    await asyncio.to_thread(wait_until, lambda: layer() == "ok")

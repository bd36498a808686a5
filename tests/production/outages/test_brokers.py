"""Brokers of other kinds, and a broker that is there and takes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from atp import ATPClient
from tests.needs import missing
from tests.processes import free_port, start_hub
from tests.production.fleet import Fleet, wait_until
from tests.production.load import assert_nothing_has_a_gap
from tests.production.outages.conftest import World

ACCEPTED_SECONDS = 20.0
REFUSING_SECONDS = 8.0
MOST_PAUSE_SECONDS = 3.0
_PAUSE = re.compile(r"[Tt]rying again in (\d+(?:\.\d+)?) s")


def control(*arguments: str) -> None:
    subprocess.run(
        ["rabbitmqctl", "--timeout", "60", *arguments], check=True, capture_output=True, timeout=90
    )


@pytest.fixture(params=["classic", "quorum"], ids=lambda kind: f"host-{kind}")
def virtual_host(request: pytest.FixtureRequest) -> Iterator[str]:
    """One whose queues are of this type where nobody says another."""
    url = os.environ.get("ATP_PRODUCTION_RABBITMQ_URL", "")
    if not url or shutil.which("rabbitmqctl") is None:
        missing("ATP_PRODUCTION_RABBITMQ_URL is not set, or there is no rabbitmqctl")
    name, parts = f"atp-{uuid.uuid4()}", urlsplit(url)
    control("add_vhost", name, "--default-queue-type", request.param)
    try:
        control("set_permissions", "-p", name, parts.username or "guest", ".*", ".*", ".*")
        yield parts._replace(path=f"/{name}").geturl()
    finally:
        control("delete_vhost", name)


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_it_judges_through_a_rabbitmq_whatever_its_default_queue_type(
    fleet: Fleet, agents: list[Path], virtual_host: str, queue_type: str
) -> None:
    env = {**fleet.env, "ATP_BROKER_URL": virtual_host, "ATP_BROKER_QUEUE_TYPE": queue_type}
    there = Fleet(fleet.folder, env)
    try:
        there.nodes.append(await asyncio.to_thread(start_hub, there.folder, free_port(), env))
        there.start_worker("rabbit")
        async with ATPClient.from_identity_file(there.at(0, agents[2])) as client:
            async with asyncio.timeout(2 * ACCEPTED_SECONDS):
                sent = await client.send_notification(agents[1].stem, {"n": 0})
        assert sent.status == "accepted"
    finally:
        there.stop()
    assert_nothing_has_a_gap(fleet)


async def test_a_worker_tries_often_however_long_its_broker_is_away(
    world: World, fleet: Fleet, agents: list[Path]
) -> None:
    """Celery's own pauses grow to half a minute."""
    log = fleet.folder.parent / "w0.log"
    before = len(log.read_text())

    def pauses() -> list[float]:
        return [float(n) for n in _PAUSE.findall(log.read_text()[before:])]

    world.redis.stop()
    try:
        await asyncio.to_thread(wait_until, lambda: len(pauses()) >= 4)
    finally:
        world.redis.start()
    assert max(pauses()) <= MOST_PAUSE_SECONDS
    async with ATPClient.from_identity_file(fleet.at(0, agents[2])) as client:
        async with asyncio.timeout(ACCEPTED_SECONDS):
            sent = await client.send_notification(agents[1].stem, {"n": 0})
    assert sent.status == "accepted"


def fill(server: redis.Redis) -> None:
    server.config_set("maxmemory", "1")


def make_room(server: redis.Redis) -> None:
    server.config_set("maxmemory", "0")


def lose_its_master(server: redis.Redis) -> None:
    server.replicaof("127.0.0.1", str(free_port()))


def be_master(server: redis.Redis) -> None:
    server.replicaof("NO", "ONE")


@pytest.mark.parametrize(
    ("refuse", "take_again"), [(fill, make_room), (lose_its_master, be_master)]
)
async def test_no_process_ends_because_redis_takes_no_tasks_for_a_while(
    world: World, fleet: Fleet, agents: list[Path], refuse: object, take_again: object
) -> None:
    """The fixture of the fleet fails where a process has ended."""
    assert callable(refuse)
    assert callable(take_again)
    with redis.Redis.from_url(world.redis.url) as server:
        async with ATPClient.from_identity_file(fleet.at(0, agents[2])) as client:
            refuse(server)
            try:
                sending = asyncio.create_task(
                    client.send_notification(agents[1].stem, {"n": 0}, {"timeout": 60_000})
                )
                await asyncio.to_thread(time.sleep, REFUSING_SECONDS)
            finally:
                take_again(server)
            async with asyncio.timeout(ACCEPTED_SECONDS):
                assert (await sending).status == "accepted"
    assert_nothing_has_a_gap(fleet)

"""Redis, PostgreSQL and RabbitMQ stop, hang and come back: nothing is lost, all of it heals.

Requests go from node to node all the while, and each must be answered once; a witness on a raw
socket tells what an agent hears meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from registry.trail.kinds import Kind
from tests.cast import Letter, write
from tests.crash.proxy import Proxy
from tests.identities import player
from tests.processes import free_port, start_hub
from tests.production.fleet import Fleet, wait_until
from tests.production.load import requests_survive
from tests.production.outages.conftest import Witness, World
from tests.wire import Wire

REQUESTS = 100
AWAY_SECONDS = 2.0  # besides the time until senders hear busy; together longer than a lease
HANGING_SECONDS = 4.0  # longer than a lease, and until batches are sent again and again

REVOKE = (
    "from registry.agents.actions.life import revoke_agent\n"
    "from registry.officers.actor import Actor\n"
    "revoke_agent({agent!r}, actor=Actor.hub(), reason='a test')\n"
)


class Saw:
    """An agent that tries to send one envelope through whatever happens."""

    def __init__(self, log_in: Callable[[], Wire], letter: Letter) -> None:
        self._log_in, self._letter = log_in, letter
        self._wire = log_in()

    def busy(self) -> None:
        """What cannot be judged is not kept back: its sender hears when to try again."""
        receipt = self._wire.submit(self._letter)
        assert (receipt["status"], receipt["code"]) == ("busy", "flow.busy")
        assert receipt["retryAfter"] > 0

    def acceptance(self) -> None:
        """On the same socket, the same envelope, sent again, is accepted at last."""
        wait_until(lambda: self._wire.submit(self._letter)["status"] == "accepted")

    def a_new_session(self) -> None:
        """Its node's lease ran out, and its session with it; it comes back."""
        assert self._wire.ended() == ("session.fenced", 4412)
        self._wire = self._log_in()


@pytest.fixture
def saw(fleet: Fleet, agents: list[Path], witness: Witness) -> Saw:
    letter = write(player(agents[2]), agents[1].stem)
    return Saw(partial(witness, fleet.nodes[0], agents[2]), letter)


async def test_it_outlives_a_redis_that_is_stopped(
    world: World, fleet: Fleet, agents: list[Path], saw: Saw, witness: Witness
) -> None:
    """Layer and queue are gone, with what was in them; officers' decisions hold as ever."""
    doomed = agents[3]
    ending = witness(fleet.nodes[1], doomed)

    def away() -> None:
        world.redis.stop()
        saw.busy()
        fleet.run_python(REVOKE.format(agent=doomed.stem))
        assert ending.ended()[0] == "session.revoked"
        time.sleep(AWAY_SECONDS)
        world.redis.start()
        saw.acceptance()

    await requests_survive(fleet, agents, away, requests=REQUESTS)


async def test_it_outlives_a_redis_that_hangs(
    world: World, fleet: Fleet, agents: list[Path], saw: Saw
) -> None:
    def hang() -> None:
        world.redis.pause()
        saw.busy()
        time.sleep(HANGING_SECONDS)
        world.redis.resume()
        saw.acceptance()

    await requests_survive(fleet, agents, hang, requests=REQUESTS)


async def test_it_outlives_a_postgresql_that_is_killed(
    world: World, fleet: Fleet, agents: list[Path], saw: Saw
) -> None:
    def kill() -> None:
        world.postgres.kill()
        saw.busy()
        assert "database" in _not_well(fleet)
        time.sleep(AWAY_SECONDS)
        world.postgres.start()
        wait_until(lambda: not _not_well(fleet))
        saw.a_new_session()
        saw.acceptance()

    await requests_survive(fleet, agents, kill, requests=REQUESTS)


async def test_it_outlives_a_postgresql_that_hangs(
    world: World, fleet: Fleet, agents: list[Path], saw: Saw
) -> None:
    """No worker has died of those batches, whatever it looks like: no envelope is to blame."""

    def hang() -> None:
        world.postgres.pause()
        time.sleep(HANGING_SECONDS)
        world.postgres.resume()
        saw.a_new_session()
        saw.acceptance()

    await requests_survive(fleet, agents, hang, requests=REQUESTS)
    assert _poisoned(fleet) == 0


async def test_it_outlives_a_rabbitmq_that_is_cut_off_and_one_that_hangs(
    world: World, fleet: Fleet, agents: list[Path], witness: Witness
) -> None:
    url = os.environ.get("ATP_PRODUCTION_RABBITMQ_URL", "")
    if not url and not os.environ.get("CI"):
        pytest.skip("ATP_PRODUCTION_RABBITMQ_URL not set")
    with _behind_rabbitmq(url or "amqp://guest:guest@127.0.0.1:5672//", fleet) as (rabbit, proxy):
        letter = write(player(agents[2]), agents[1].stem)
        saw = Saw(partial(witness, rabbit.nodes[0], agents[2]), letter)

        def cut() -> None:
            assert proxy.cut(1.0) > 0
            proxy.hush()
            saw.busy()
            time.sleep(HANGING_SECONDS)
            proxy.speak()
            assert proxy.cut(1.0) > 0
            saw.acceptance()

        await requests_survive(rabbit, agents, cut, requests=REQUESTS)


@contextmanager
def _behind_rabbitmq(url: str, fleet: Fleet) -> Iterator[tuple[Fleet, Proxy]]:
    """One more node and worker of the hub, with RabbitMQ as their broker, through a proxy."""
    parts = urlsplit(url)
    with Proxy([parts.port or 5672], seed=1) as proxy:
        login = parts.netloc.rpartition("@")[0]
        there = parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}").geturl()
        rabbit = Fleet(fleet.folder, {**fleet.env, "ATP_BROKER_URL": there})
        try:
            rabbit.nodes.append(start_hub(rabbit.folder, free_port(), rabbit.env))
            rabbit.start_worker("rabbit")
            rabbit.nodes.append(fleet.nodes[1])
            yield rabbit, proxy
        finally:
            del rabbit.nodes[1:]
            rabbit.stop()


def _not_well(fleet: Fleet) -> list[str]:
    """What `/readyz` of the first node names."""
    return list(httpx.get(f"{fleet.nodes[0].url}/readyz", timeout=20).json()["failed"])


def _poisoned(fleet: Fleet) -> int:
    ((count,),) = fleet.query(
        "SELECT count(*) FROM registry_entry WHERE kind = %s", str(Kind.ENVELOPE_POISONED)
    )
    return int(count)

"""A fleet on its own engines, which tests stop one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.conftest import LiveHub
from tests.identities import player
from tests.processes import HubProcess
from tests.production.fleet import Fleet, wait_until
from tests.services import PrivatePostgres, PrivateRedis
from tests.wire import Wire

IMPATIENT = {"DJANGO_SETTINGS_MODULE": "tests.production.impatient"}
MOST_GROWTH_BYTES = 96 * 2**20  # of a process, over one outage

SOON_SECONDS = 20.0

Witness = Callable[[HubProcess, Path], Wire]


@dataclass(frozen=True, slots=True)
class World:
    """Engines, and two nodes, two workers and beat on them."""

    postgres: PrivatePostgres
    redis: PrivateRedis
    fleet: Fleet

    def memory(self) -> dict[int, int]:
        """Return the resident bytes of every running process of the hub, by its id."""
        started = [node.process for node in self.fleet.nodes]
        pids = [p.pid for p in (*started, *self.fleet.workers.values()) if p.poll() is None]
        return {pid: psutil.Process(pid).memory_info().rss for pid in pids}

    def mend(self) -> None:
        """Start or continue both engines, also after a failed test."""
        for engine in (self.postgres, self.redis):
            engine.resume()
            engine.start()

    def works(self) -> bool:
        """Return whether all workers have started their child processes."""
        workers = [w for name, w in self.fleet.workers.items() if name != "beat"]
        return all(psutil.Process(worker.pid).children() for worker in workers)


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with PrivatePostgres() as postgres, PrivateRedis() as redis:
        env = {
            **IMPATIENT,
            "ATP_DATABASE_URL": postgres.url,
            "ATP_REDIS_URL": redis.database(0),
            "ATP_BROKER_URL": redis.database(1),
        }
        fleet = Fleet(tmp_path_factory.mktemp("outages") / "data", env)
        fleet.folder.mkdir()
        try:
            fleet.start(nodes=2, workers=2)
            world = World(postgres, redis, fleet)
            wait_until(world.works)
            yield world
        finally:
            fleet.stop()


@pytest.fixture
def fleet(world: World) -> Iterator[Fleet]:
    """Return the fleet; afterwards check that the same processes run and none has grown much."""
    before = world.memory()
    try:
        yield world.fleet
    finally:
        world.mend()
    after = world.memory()
    assert after.keys() == before.keys(), "a process has died"
    grown = {pid: after[pid] - before[pid] for pid in before}
    assert max(grown.values()) < MOST_GROWTH_BYTES, grown


@pytest.fixture(scope="package")
def agents(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the identities of three agents that stay, and of one that is revoked."""
    return world.fleet.enrol(4, tmp_path_factory.mktemp("identities"))


@pytest.fixture
def witness(fleet: Fleet) -> Iterator[Witness]:
    """Return a function that opens raw sockets of agents at a node when it is not busy."""
    with ExitStack() as opened:

        def witness(node: HubProcess, identity: Path) -> Wire:
            deadline = time.monotonic() + SOON_SECONDS
            while True:
                try:
                    wire = Wire.log_in(LiveHub(url=node.url), player(identity))
                except AssertionError:  # the socket was closed before the welcome
                    assert time.monotonic() < deadline, "the node lets no witness in"
                    time.sleep(0.1)
                    continue
                return opened.enter_context(wire)

        yield witness

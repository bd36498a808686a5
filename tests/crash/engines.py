"""The engines of a run: PostgreSQL and Redis, the way to them, and the disk that they write to.

The hub reaches its engines through proxies, so that connections can go mute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.crash.proxy import Proxy
from tests.disks import Disk, NoMount, disk_in_a_file
from tests.services import PrivatePostgres, PrivateRedis

DISK_MIB = 3_072  # the cluster, its log of up to 1 GiB, and the rows of a long run


@dataclass(frozen=True, slots=True)
class Engines:
    """The services that runs start for themselves."""

    postgres: PrivatePostgres
    redis: PrivateRedis


@dataclass(frozen=True, slots=True)
class Storage:
    """The disk of the database, which can be filled up; without one, why there is none."""

    disk: Disk | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Ways:
    """The proxies between the hub and its engines."""

    postgres: Proxy
    layer: Proxy
    broker: Proxy

    def urls(self, database: str) -> dict[str, str]:
        """Return the variables by which the hub reaches `database` and Redis."""
        return {
            "ATP_DATABASE_URL": f"postgres://postgres@127.0.0.1:{self.postgres.port}/{database}",
            "ATP_REDIS_URL": f"redis://127.0.0.1:{self.layer.port}/0",
            "ATP_BROKER_URL": f"redis://127.0.0.1:{self.broker.port}/1",
        }


@contextmanager
def private_engines(storage: Storage) -> Iterator[Engines]:
    """Start Redis, and PostgreSQL on this disk."""
    parent = None if storage.disk is None else storage.disk.folder
    with PrivatePostgres(parent=parent) as postgres, PrivateRedis() as redis:
        yield Engines(postgres, redis)


@contextmanager
def ways_to(engines: Engines, *, seed: int) -> Iterator[Ways]:
    """Put a proxy before each engine."""
    with ExitStack() as running:
        ports = (engines.postgres.port, engines.redis.port, engines.redis.port)
        postgres, layer, broker = (
            running.enter_context(Proxy([port], seed=seed)) for port in ports
        )
        yield Ways(postgres, layer, broker)


@contextmanager
def storage_that_fills() -> Iterator[Storage]:
    """Mount a disk, if this machine allows it."""
    with ExitStack() as mounted:
        try:
            disk = mounted.enter_context(disk_in_a_file(DISK_MIB))
        except NoMount as why:
            yield Storage(why_not=str(why))
            return
        yield Storage(disk)

"""One fleet for these tests, on engines that are found through the environment.

`ATP_PRODUCTION_DATABASE_URL` (a server where databases can be made), `ATP_PRODUCTION_REDIS_URL`,
`ATP_PRODUCTION_BROKER_URL`. Without them these tests skip, unless `CI` is set: then they take the
services of this machine, and fail where there are none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.production.fleet import Fleet

LOOPBACK = {
    "DATABASE": "postgres://postgres@127.0.0.1:5432/postgres",
    "REDIS": "redis://127.0.0.1:6379/9",
    "BROKER": "redis://127.0.0.1:6379/10",
}


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, str]]:
    """Make a database for this run; return the hub's variables for it, a Redis and a broker."""
    urls = {kind: os.environ.get(f"ATP_PRODUCTION_{kind}_URL", "") for kind in LOOPBACK}
    if os.environ.get("CI"):
        urls = {kind: url or LOOPBACK[kind] for kind, url in urls.items()}
    if missing := [f"ATP_PRODUCTION_{kind}_URL" for kind, url in urls.items() if not url]:
        pytest.skip(f"{', '.join(missing)} not set")
    name = f"atp_production_{os.getpid()}"
    with psycopg.connect(urls["DATABASE"], autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}".encode())
        yield {
            "ATP_DATABASE_URL": urlsplit(urls["DATABASE"])._replace(path=f"/{name}").geturl(),
            "ATP_REDIS_URL": urls["REDIS"],
            "ATP_BROKER_URL": urls["BROKER"],
        }
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def fleet(engines: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two nodes, two workers and beat."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet") / "data", engines)
    fleet.folder.mkdir()
    try:
        fleet.start(nodes=2, workers=2)
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture
def agents(fleet: Fleet, tmp_path: Path) -> list[Path]:
    """Return the identities of three new agents."""
    return fleet.enrol(3, tmp_path / "identities")

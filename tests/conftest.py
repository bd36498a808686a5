"""One live database for a run of the tests, and one real hub on it.

Nothing is rolled back and nothing is flushed: the trail is append-only, and a test sees the
rows that the hub committed. Each test makes its own agents, with random names.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.test.utils import setup_databases, teardown_databases

from tests.needs import missing
from tests.sources import ROOT
from tests.surroundings import Surroundings

START_SECONDS = 20
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class LiveHub:
    """The address of the hub of this run."""

    url: str

    @property
    def http_url(self) -> str:
        return self.url

    @property
    def ws_url(self) -> str:
        """The WebSocket URL for agents."""
        return self.url.replace("http://", "ws://", 1) + "/ws/agents/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use the database: CI runs these a second time, on PostgreSQL."""
    for item in items:
        if "database" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


@pytest.fixture(autouse=True)
def leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that changes shared state; fixtures of a wider scope run before this one."""
    before = Surroundings.now()
    yield
    monkeypatch.undo()  # a plugin may have asked for it first: then pytest undoes it only later
    assert before.changes(Surroundings.now()) == [], "this test leaves something behind"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Give this run its own database, so that runs on the same server do not collide."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] == "atp_site.sqlite":
        database["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "hub.sqlite3")
    else:
        database["TEST"]["NAME"] = f"test_{database['NAME']}_{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def open_connections() -> Iterator[list[Any]]:
    """Collect the connections of all threads, to close them before the database is dropped."""
    made: list[Any] = []

    def remember(connection: Any, **_: Any) -> None:
        made.append(connection.connection)

    connection_created.connect(remember)
    yield made
    connection_created.disconnect(remember)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: Any,
    open_connections: list[Any],
) -> Iterator[None]:
    """Make the database, also for tests without pytest-django's marker."""
    with django_db_blocker.unblock():
        replaced = setup_databases(verbosity=0, interactive=False, serialized_aliases=[])
        yield
        connections.close_all()
        for connection in open_connections:
            connection.close()
        teardown_databases(replaced, verbosity=0)


@pytest.fixture(scope="session")
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Migrate the test database, and make the hub's row and keys."""
    from registry.bootstrap import ensure_hub

    with django_db_blocker.unblock():
        ensure_hub()
        yield


@pytest.fixture(scope="session")
def hub(database: None) -> Iterator[LiveHub]:
    """Run the project's ASGI application on uvicorn, on a free port."""
    from messaging.process.serve import server_config

    listener = socket.create_server(("127.0.0.1", 0))
    with closing(listener):
        server = uvicorn.Server(server_config())
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="hub", daemon=True
        )
        thread.start()
        _wait_for_start(server, thread)
        yield LiveHub(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        thread.join(STOP_SECONDS)
        assert not thread.is_alive(), "the hub did not stop"


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Return the folder of the published test vectors. If it is missing, skip; in CI, fail."""
    folder = Path(os.environ.get("ATP_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not folder.is_dir():
        missing(f"no test vectors in {folder}; set ATP_VECTORS")
    return folder


def _wait_for_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            pytest.fail("the hub did not start; its log says why")
        time.sleep(0.02)

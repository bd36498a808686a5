"""A hub behind pgbouncer: its promises hold where sessions are pooled, and it refuses the rest.

The database behind it has `synchronous_commit=off`, so a receipt would promise too much if the hub
did not set its own sessions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.cast import write
from tests.conftest import LiveHub
from tests.identities import enrol, player
from tests.pooler import PrivatePgbouncer
from tests.processes import manage, start_hub
from tests.production.fleet import wait_until
from tests.services import PrivatePostgres, PrivateRedis
from tests.wire import Wire

IMPATIENT = {"DJANGO_SETTINGS_MODULE": "tests.production.impatient"}
STARTUP = [{}, {"ignore_startup_parameters": "options"}]
SENTENCE = (
    "The database can't be used: the connection pooler in front of PostgreSQL gives one session to"
    " several connections: set pool_mode = session and server_reset_query = DISCARD ALL in it"
)
# Each of them lets a session of one connection be seen by another, or takes away what was set.
POOLED = {
    "transaction": {"pool_mode": "transaction"},
    "transaction, options ignored": {
        "pool_mode": "transaction",
        "ignore_startup_parameters": "options",
    },
    "transaction, one session": {"pool_mode": "transaction", "default_pool_size": 1},
    "transaction, in turn": {"pool_mode": "transaction", "server_round_robin": 1},
    "transaction, reset": {"pool_mode": "transaction", "server_reset_query_always": 1},
    "statement": {"pool_mode": "statement"},
    "not reset": {"pool_mode": "session", "server_reset_query": ""},
    "half reset": {"pool_mode": "session", "server_reset_query": "RESET ALL"},
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PrivatePostgres]:
    """A PostgreSQL whose database has defaults that no receipt could rest on."""
    with PrivatePostgres() as server:
        with psycopg.connect(server.url, autocommit=True) as database:
            for name, value in {
                "synchronous_commit": "off",
                "default_transaction_isolation": "serializable",
                "idle_in_transaction_session_timeout": "0",
            }.items():
                database.execute(f"ALTER DATABASE postgres SET {name} = '{value}'".encode())
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secrets of the hub on that database."""
    return tmp_path_factory.mktemp("pooled") / "data"


@pytest.mark.parametrize("startup", STARTUP, ids=["options refused", "options ignored"])
def test_it_serves_where_sessions_are_pooled(
    startup: dict[str, str], postgres: PrivatePostgres, folder: Path, tmp_path: Path
) -> None:
    with PrivatePgbouncer(postgres, pool_mode="session", **startup) as pooler:
        env = {**IMPATIENT, "ATP_DATABASE_URL": pooler.url}
        hub = start_hub(folder, env=env)
        try:
            alice, bob = map(player, enrol(hub, 2, tmp_path / "identities", env))
            with Wire.log_in(LiveHub(hub.url), alice) as wire:
                assert wire.submit(write(alice, bob))["status"] == "accepted"
        finally:
            assert hub.stop() == 0
        assert told(env, folder) == "on\nread committed\n1min"


@pytest.mark.parametrize("settings", POOLED.values(), ids=POOLED.keys())
def test_rejects_a_pooler_that_gives_one_session_to_several(
    settings: dict[str, str], postgres: PrivatePostgres, tmp_path: Path
) -> None:
    with PrivatePgbouncer(postgres, **settings) as pooler:
        done = manage(["hub"], tmp_path / "data", {**IMPATIENT, "ATP_DATABASE_URL": pooler.url})
    assert (done.returncode, done.stderr) == (1, f"{SENTENCE}\n")


@pytest.mark.parametrize("command", ["worker", "beat", "production"])
def test_rejects_it_for_every_process(
    command: str, postgres: PrivatePostgres, tmp_path: Path
) -> None:
    with (
        PrivateRedis() as redis,
        PrivatePgbouncer(postgres, pool_mode="transaction") as pooler,
    ):
        env = {
            **IMPATIENT,
            "ATP_DATABASE_URL": pooler.url,
            "ATP_REDIS_URL": redis.database(0),
            "ATP_BROKER_URL": redis.database(1),
        }
        done = manage([command], tmp_path / "data", env)
    assert (done.returncode, done.stderr) == (1, f"{SENTENCE}\n")


def test_rejects_a_session_that_does_not_keep_what_is_set(
    postgres: PrivatePostgres, tmp_path: Path
) -> None:
    """As behind a pooler that takes SET for its own; here, the database's own function does it."""
    with psycopg.connect(postgres.url, autocommit=True) as database:
        database.execute("CREATE SCHEMA drops")
        database.execute(
            "CREATE FUNCTION drops.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS"
            " $$SELECT CASE WHEN $1 <> 'synchronous_commit'"
            " THEN pg_catalog.set_config($1, $2, $3) END$$"
        )
        database.execute("ALTER DATABASE postgres SET search_path = drops, pg_catalog, public")
        try:
            done = manage(["hub"], tmp_path / "data", {"ATP_DATABASE_URL": postgres.url})
        finally:
            database.execute("ALTER DATABASE postgres RESET search_path")
    assert (done.returncode, done.stderr) == (
        1,
        "The database can't be used: synchronous_commit is off after it was set to on: the"
        " connection pooler in front of PostgreSQL must leave to the hub what it sets in its"
        " session\n",
    )


def test_a_hub_that_runs_says_so_where_its_pooler_is_changed(
    postgres: PrivatePostgres, folder: Path
) -> None:
    """`/readyz` and the state of the hub: a reload changes the mode for sessions made later."""
    with PrivatePgbouncer(postgres, pool_mode="session") as pooler:
        env = {**IMPATIENT, "ATP_DATABASE_URL": pooler.url}
        hub = start_hub(folder, env=env)
        try:
            pooler.change(pool_mode="transaction")
            wait_until(lambda: httpx.get(f"{hub.url}/readyz", timeout=20).status_code == 503)
            assert httpx.get(f"{hub.url}/readyz", timeout=20).json()["failed"] == ["database"]
        finally:
            assert hub.stop() == 0


def told(env: dict[str, str], folder: Path) -> str:
    """What a session of the hub has, of the settings that the database has otherwise."""
    code = (
        "from django.db import connection as c\n"
        "with c.cursor() as cursor:\n"
        "    for name in ('synchronous_commit', 'transaction_isolation',\n"
        "                 'idle_in_transaction_session_timeout'):\n"
        "        cursor.execute(f'SHOW {name}')\n"
        "        print(*cursor.fetchone())\n"
    )
    done = manage(["shell", "-v", "0", "-c", code], folder, env)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

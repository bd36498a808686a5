"""Connections to PostgreSQL that are there and dead: every wait on them has an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, transaction
from django.db.utils import ConnectionHandler

from atp_site import engines
from atp_site.postgresql import base as backend
from registry.storage import round_trips
from registry.storage.patience import waiting_at_most
from registry.storage.round_trips import Asked, one_trip
from tests.crash.proxy import Proxy
from tests.services import PrivatePostgres
from tests.waits import result

MUTE = "mute"  # the name of our connection among Django's, and of the threads that use it


@pytest.fixture(scope="module")
def server() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def proxy(server: PrivatePostgres) -> Iterator[Proxy]:
    with Proxy([server.port], seed=1) as proxy:
        yield proxy


@pytest.fixture
def shared(proxy: Proxy, tmp_path: Path, django_db_blocker: Any) -> Iterator[Any]:
    """A connection through the proxy, as the hub would make it, for any thread of the test."""
    entry = engines.database(f"postgres://postgres@127.0.0.1:{proxy.port}/postgres", tmp_path)
    made = ConnectionHandler({"default": entry})["default"]
    made.inc_thread_sharing()
    with django_db_blocker.unblock():
        yield made
        made.close()


def ask(database: Any, sql: str = "SELECT 1") -> Any:
    with database.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def within_a_test(work: Any) -> Any:
    """Let another thread do it, so that a wait without end fails instead of hanging."""
    pool = ThreadPoolExecutor(1, thread_name_prefix=MUTE)
    try:
        return result(pool.submit(work), "the end of the wait")
    finally:
        pool.shutdown(wait=False)


class OnlyHere:
    """`ours` in the threads of `within_a_test`, `others` in those of a hub of other tests."""

    def __init__(self, ours: Any, others: Any) -> None:
        self._ours, self._others = ours, others

    def __getattr__(self, name: str) -> Any:
        is_ours = threading.current_thread().name.startswith(MUTE)
        return getattr(self._ours if is_ours else self._others, name)


def test_a_statement_without_an_answer_ends_and_the_next_makes_a_connection(
    shared: Any, proxy: Proxy
) -> None:
    assert ask(shared) == 1
    proxy.forget()

    def swallowed() -> None:
        with (
            waiting_at_most(1.0),
            pytest.raises(OperationalError, match="has not answered for 1 s"),
        ):
            ask(shared)

    within_a_test(swallowed)
    shared.close_if_unusable_or_obsolete()
    assert ask(shared) == 1


def test_a_transaction_without_an_answer_does_not_wait_again_for_its_rollback(
    shared: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = transaction.get_connection  # of a hub of other tests, which goes on in this process
    monkeypatch.setattr(
        transaction, "get_connection", lambda using=None: shared if using == MUTE else others(using)
    )
    ends = []
    wait = backend.BoundedConnection.wait

    def counted(self: Any, *args: Any) -> Any:
        try:
            return wait(self, *args)
        except psycopg.OperationalError as problem:
            ends.append(str(problem))
            raise

    monkeypatch.setattr(backend.BoundedConnection, "wait", counted)

    def in_a_transaction() -> None:
        with transaction.atomic(using=MUTE):
            ask(shared)
            proxy.forget()
            ask(shared)

    def swallowed() -> None:
        with waiting_at_most(1.0), pytest.raises(OperationalError):
            in_a_transaction()

    within_a_test(swallowed)
    assert sum("has not answered" in end for end in ends) == 1


def test_a_pipeline_without_an_answer_ends(
    shared: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {DEFAULT_DB_ALIAS: OnlyHere(shared, connection)}
    monkeypatch.setattr(round_trips, "connections", ours)

    def swallowed() -> None:
        assert ask(shared) == 1
        proxy.forget()
        with waiting_at_most(1.0), pytest.raises(OperationalError), one_trip():
            Asked("SELECT 1").rows()

    within_a_test(swallowed)


def test_a_connection_that_was_idle_is_asked_before_it_gets_work(
    shared: Any, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall forgets idle connections: no work may be lost to that."""
    assert ask(shared) == 1
    shared.connection.answered_at -= backend.IDLE_SECONDS + 1
    proxy.forget()
    assert within_a_test(lambda: ask(shared)) == 1


def test_a_connection_in_use_is_not_asked(shared: Any) -> None:
    assert ask(shared) == 1
    first = ask(shared, "SELECT pg_backend_pid()")
    assert ask(shared, "SELECT pg_backend_pid()") == first


def test_a_change_of_tables_may_take_as_long_as_it_takes(shared: Any) -> None:
    with waiting_at_most(0.2), shared.schema_editor() as editor:
        editor.execute("SELECT pg_sleep(1)")
    with waiting_at_most(0.2), pytest.raises(OperationalError):
        ask(shared, "SELECT 1 FROM pg_sleep(1)")


def test_the_wait_for_a_connection_has_an_end_too(shared: Any, proxy: Proxy) -> None:
    proxy.hush()
    try:
        with pytest.raises(OperationalError):
            within_a_test(lambda: ask(shared))
    finally:
        proxy.speak()

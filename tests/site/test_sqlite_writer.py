"""One fair writer at a time on an SQLite file, however transactions end."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, OperationalError, connections, transaction

from atp_site import engines
from atp_site.sqlite.writer import WriterLock, writer_lock

ALIAS = "writer"  # a database beside the one of the other tests
LONG_SECONDS = 20.0
SHORT_SECONDS = 0.2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub.sqlite3"


@pytest.fixture(autouse=True)
def counter(path: Path, django_db_blocker: Any) -> Iterator[None]:
    """A database with one number in it, known to Django as `ALIAS`."""
    entry = engines.database("", path.parent)
    connections.settings[ALIAS] = connections.configure_settings({"default": entry})["default"]
    with django_db_blocker.unblock():
        execute("CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
        execute(
            "CREATE TABLE child (id INTEGER REFERENCES counter (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        execute("INSERT INTO counter VALUES (1, 0)")
        yield
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


@pytest.fixture
def lock(path: Path) -> WriterLock:
    return writer_lock(str(path))


@pytest.fixture
def impatient() -> None:
    """Wait for the writer only a moment."""
    connections.settings[ALIAS]["OPTIONS"]["timeout"] = SHORT_SECONDS
    connections[ALIAS].close()


def execute(sql: str, *values: int) -> None:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(sql, values)


def number() -> int:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT n FROM counter")
        return int(cursor.fetchone()[0])


def add() -> None:
    with transaction.atomic(using=ALIAS):
        execute("UPDATE counter SET n = %s", number() + 1)


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    def close_after() -> None:
        try:
            work()
        finally:
            connections[ALIAS].close()

    thread = threading.Thread(target=close_after, daemon=True)
    thread.start()
    return thread


def finish(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(LONG_SECONDS)
        assert not thread.is_alive(), "a writer waits for ever"


def wait_for_queue(lock: WriterLock, length: int) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while lock.waiting != length:
        assert time.monotonic() < deadline, f"{lock.waiting} wait, not {length}"
        time.sleep(0.002)


def elsewhere(work: Callable[[], Any]) -> Any:
    """The result of `work` in another thread, with a connection of its own; raises its failure."""
    found: list[Any] = []

    def keep() -> None:
        try:
            found.append(work())
        except DatabaseError as problem:
            found.append(problem)

    finish(in_thread(keep))
    if isinstance(found[0], DatabaseError):
        raise found[0]
    return found[0]


def test_it_survives_a_power_cut() -> None:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,), "2 is FULL"


def test_it_loses_no_update_between_threads() -> None:
    def add_often() -> None:
        for _ in range(25):
            add()

    finish(*(in_thread(add_often) for _ in range(6)))
    assert number() == 150


def test_it_serves_writers_in_the_order_of_their_arrival(lock: WriterLock) -> None:
    order: list[int] = []

    def write(place: int) -> None:
        with transaction.atomic(using=ALIAS):
            order.append(place)

    threads = []
    with transaction.atomic(using=ALIAS):
        for place in range(8):
            threads.append(in_thread(partial(write, place)))
            wait_for_queue(lock, place + 1)
    finish(*threads)
    assert order == list(range(8))


def test_it_lets_reads_pass_a_writer(impatient: None) -> None:
    with transaction.atomic(using=ALIAS):
        add()
        assert elsewhere(number) == 0, "what is not committed is not seen"
    assert elsewhere(number) == 1


def test_it_keeps_its_turn_when_a_savepoint_ends(impatient: None) -> None:
    with transaction.atomic(using=ALIAS):
        add()
        with pytest.raises(KeyError):
            raise_inside()
        with pytest.raises(OperationalError, match="locked"):
            elsewhere(add)
    assert number() == 1
    elsewhere(add)
    assert number() == 2


def test_it_queues_single_statements_too(lock: WriterLock) -> None:
    with transaction.atomic(using=ALIAS):
        add()
        thread = in_thread(lambda: execute("UPDATE counter SET n = n * 10"))
        wait_for_queue(lock, 1)
        add()
    finish(thread)
    assert number() == 20


def raise_inside() -> None:
    with transaction.atomic(using=ALIAS):
        add()
        raise KeyError


def fail_at_commit() -> None:
    with transaction.atomic(using=ALIAS):
        add()
        execute("INSERT INTO child VALUES (99)")  # refers to nothing; noticed at the commit


def fail_in_a_statement() -> None:
    with transaction.atomic(using=ALIAS):
        add()
        execute("UPDATE nothing SET n = 1")


def close_inside() -> None:
    with transaction.atomic(using=ALIAS):
        add()
        connections[ALIAS].close()
        number()


def fail_outside() -> None:
    execute("INSERT INTO counter VALUES (1, 1)")


@pytest.mark.parametrize(
    ("work", "failure"),
    [
        (raise_inside, KeyError),
        (fail_at_commit, IntegrityError),
        (fail_in_a_statement, OperationalError),
        (close_inside, DatabaseError),
        (fail_outside, IntegrityError),
    ],
)
def test_it_hands_over_however_a_transaction_ends(
    work: Callable[[], None], failure: type[Exception], impatient: None
) -> None:
    with pytest.raises(failure):
        work()
    assert number() == 0
    elsewhere(add)
    assert number() == 1


def test_it_hands_over_when_another_process_has_the_file(impatient: None, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        add()
    other.execute("ROLLBACK")
    other.close()
    elsewhere(add)
    assert number() == 1


def test_it_goes_on_after_a_thread_that_died_in_its_transaction() -> None:
    kept = []

    def die() -> None:
        kept.append(connections[ALIAS])  # so that nothing but the next writer tidies up
        transaction.atomic(using=ALIAS).__enter__()
        execute("UPDATE counter SET n = 99")

    thread = threading.Thread(target=die)
    thread.start()
    finish(thread)
    add()
    assert number() == 1


def test_rejects_a_thread_that_would_wait_for_itself() -> None:
    second = connections.create_connection(ALIAS)
    with transaction.atomic(using=ALIAS):
        add()
        with pytest.raises(OperationalError, match="locked"), second.cursor() as cursor:
            cursor.execute("UPDATE counter SET n = 5")
    second.close()
    assert number() == 1


def commit_nothing() -> None:
    with transaction.atomic(using=ALIAS):
        add()
        connections[ALIAS].connection.rollback()


def test_rejects_the_commit_of_a_transaction_that_sqlite_gave_up() -> None:
    """As on a full disk; the caller must not believe that its rows are there."""
    with pytest.raises(OperationalError, match="rolled back"):
        commit_nothing()
    assert number() == 0
    elsewhere(add)
    assert number() == 1

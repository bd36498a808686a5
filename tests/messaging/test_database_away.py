"""A database that is away or does not answer: nothing goes out unseen, and all of it mends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from django.db import Error as DatabaseProblem
from django.db import connection, connections

from messaging.node.process_node import process_node
from messaging.sessions import leases as lease
from registry.storage.threads import DatabaseThreads
from tests.cast import Player, write
from tests.messaging.conftest import LogIn, until
from tests.waits import result

T = TypeVar("T")


@pytest.fixture
def threads(database: None) -> Iterator[DatabaseThreads]:
    with DatabaseThreads(1) as threads:
        yield threads
        result(threads.submit(connections.close_all), "the connections being closed")


def test_a_thread_gets_over_a_connection_that_broke(threads: DatabaseThreads) -> None:
    assert result(threads.submit(_ask), "an answer of the database") == 1
    result(
        threads.submit(lambda: connection.connection.close()), "a closed connection"
    )  # as a restarted server does

    with pytest.raises(DatabaseProblem):
        result(threads.submit(_ask), "an answer of the database")
    assert result(threads.submit(_ask), "an answer of the database") == 1


def test_a_thread_does_not_trip_over_what_another_found_broken(database: None) -> None:
    """After a restart of the database one question fails, not one for each thread."""
    together = threading.Barrier(2)

    def at_once(work: Callable[[], T]) -> list[T]:
        def one() -> T:
            together.wait(20)
            return work()

        return [result(future, "both threads") for future in [pool.submit(one) for _ in range(2)]]

    with DatabaseThreads(2) as pool:
        assert at_once(_ask) == [1, 1]
        at_once(lambda: connection.connection.close())
        with pytest.raises(DatabaseProblem):
            result(pool.submit(_ask), "an answer of the database")
        assert at_once(_ask) == [1, 1]
        at_once(connections.close_all)


def test_a_node_that_hears_nothing_of_the_registry_delivers_nothing(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error tells of a database that swallows questions; the silence itself has to."""
    alices, bobs = log_in(alice), log_in(bob)
    look, answer = lease.epoch, threading.Event()

    def swallowed() -> int:
        answer.wait(20)
        return look()

    monkeypatch.setattr(lease, "epoch", swallowed)
    letter = write(alice, bob)
    try:
        until(lambda: not process_node.current().sees(), "blindness")
        assert alices.submit(letter)["status"] == "accepted"
        assert process_node.current().roster.agents[bob.id].position("mail").sent == 0
    finally:
        answer.set()

    assert bobs.mail()["ATP"]["messageId"] == letter.message_id


def _ask() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])

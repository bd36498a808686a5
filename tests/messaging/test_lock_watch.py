"""A process that stops within a transaction keeps its locks; a node ends its database session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from messaging.node import lock_watch
from messaging.node.lock_watch import LockWatch
from registry.storage.round_trips import one_trip
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite has one writer at a time, in one process"
)
DRAFT = EntryDraft(Kind.ENVELOPE_POISONED, actor="hub", shared={"reason": "a test"})


@contextmanager
def stopped(within: Callable[[], Any], *, name: str = "") -> Iterator[list[BaseException]]:
    """A thread that does `within` in a transaction and then nothing; what its commit raised."""
    reached, woken, raised = threading.Event(), threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            with transaction.atomic():
                if name:
                    _execute(f"SET application_name = '{name}'")
                within()
                reached.set()
                woken.wait(20)
        except OperationalError as problem:
            raised.append(problem)
        finally:
            reached.set()
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    assert reached.wait(20)
    try:
        yield raised
    finally:
        woken.set()
        thread.join(20)


@pytest.fixture
def watch(database: None, monkeypatch: pytest.MonkeyPatch) -> LockWatch:
    monkeypatch.setattr(lock_watch, "HELD_SECONDS", 0.5)
    return LockWatch(None)  # type: ignore[arg-type]  # the test looks itself


def _look_for(watch: LockWatch, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.look()
        time.sleep(0.1)


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def _append_in_a_pipeline() -> None:
    pipeline = one_trip()
    pipeline.__enter__()  # and it stays open, as where a process stops in it
    append([DRAFT])


@pytest.mark.parametrize("within", [lambda: append([DRAFT]), _append_in_a_pipeline])
def test_it_ends_a_session_that_holds_the_log_lock(
    watch: LockWatch, within: Callable[[], Any]
) -> None:
    with stopped(within) as raised:
        _look_for(watch, 1.5)
        with transaction.atomic():
            append([DRAFT])
    assert raised, "the stopped one committed"


def test_it_ends_a_session_that_keeps_others_waiting_for_a_row(watch: LockWatch) -> None:
    lock = "SELECT pg_advisory_xact_lock(4711)"  # any lock will do
    with stopped(lambda: _execute(lock)) as raised:
        waiter = threading.Thread(target=_wait_for, args=(lock,))
        waiter.start()
        _look_for(watch, 1.5)
        waiter.join(20)
        assert not waiter.is_alive()
    assert raised


def test_it_leaves_alone_who_keeps_nobody_waiting(watch: LockWatch) -> None:
    with stopped(lambda: _execute("SELECT pg_advisory_xact_lock(4712)")) as raised:
        _look_for(watch, 1.5)
    assert not raised


def test_it_leaves_an_operators_session_alone(watch: LockWatch) -> None:
    lock = "SELECT pg_advisory_xact_lock(4713)"
    with stopped(lambda: _execute(lock), name="psql") as raised:
        waiter = threading.Thread(target=_wait_for, args=(lock,))
        waiter.start()
        _look_for(watch, 1.5)
        assert waiter.is_alive()
    waiter.join(20)
    assert not raised


def test_it_leaves_alone_who_goes_on_asking(watch: LockWatch) -> None:
    with transaction.atomic():
        append([DRAFT])
        other = threading.Thread(target=_looks, args=(watch,))
        other.start()
        while other.is_alive():
            _execute("SELECT 1")
            time.sleep(0.2)
        other.join(20)


def _looks(watch: LockWatch) -> None:
    try:
        _look_for(watch, 1.5)
    finally:
        connections.close_all()


def _wait_for(lock: str) -> None:
    try:
        with transaction.atomic():
            _execute(lock)
    finally:
        connections.close_all()

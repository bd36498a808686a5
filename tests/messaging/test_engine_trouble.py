"""A database that fails half: no honest envelope is blamed for it, and sessions are replaced.

The troubles are PostgreSQL's own; where the tests run on SQLite, those skip.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.conf import settings as site
from django.db import Error as DatabaseProblem
from django.db import connection, connections, transaction
from pytest_django.fixtures import Settings

from messaging import failpoints
from messaging.models import Batch
from messaging.node.process_node import process_node
from messaging.tasks import check_envelopes
from registry.storage.threads import DatabaseThreads
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Letter, Player, write
from tests.messaging.conftest import Arm, LogIn, until
from tests.waits import result
from tests.wire import Wire


class Broken(Exception):
    """What a worker dies of."""


@pytest.fixture
def postgresql(database: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is not what this is about; set ATP_DATABASE_URL")


@pytest.fixture
def outsider(postgresql: None) -> Iterator[str]:
    """A role that may read and write no table."""
    role = f"atp_test_{secrets.token_hex(4)}"
    with elsewhere() as server:
        server.execute(f"CREATE ROLE {role}".encode())
        yield role
        server.execute(f"DROP ROLE {role}".encode())


@contextmanager
def elsewhere() -> Iterator[psycopg.Connection[Any]]:
    """A session of the test's own on the same database."""
    parts = connection.get_connection_params()
    names = ("dbname", "host", "port", "user", "password")
    known = {name: parts[name] for name in names if name in parts}
    with psycopg.connect(**known, autocommit=True) as server:
        yield server


def say(statement: str, letter: Letter) -> Callable[[object], None]:
    """A failpoint at which the session that judges `letter` runs `statement`."""

    def run(subject: object) -> None:
        told = subject if isinstance(subject, str) else str([i.message_id for i in subject])  # type: ignore[attr-defined]  # a batch
        if letter.message_id in told:
            with connection.cursor() as cursor:
                cursor.execute(statement)

    return run


def assert_busy_then_accepted(alices: Wire, letter: Letter, mend: Callable[[], None]) -> None:
    """While it lasts its sender hears `busy`; afterwards the same envelope is accepted."""
    receipt = alices.submit(letter)
    assert (receipt["status"], receipt["code"]) == ("busy", "flow.busy")
    mend()
    until(lambda: alices.submit(letter)["status"] == "accepted", "acceptance")
    assert not Entry.objects.filter(
        kind=Kind.ENVELOPE_POISONED, message_id=letter.message_id
    ).exists()


def test_it_blames_nobody_for_a_read_only_transaction(
    postgresql: None, log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    """As a failover makes them: InternalError, 25006."""
    settings.ATP_BUSY_AFTER_SECONDS = 0.5
    alices, letter = log_in(alice), write(alice, bob)
    arm("before_insert", say("SET LOCAL transaction_read_only = on", letter))
    assert_busy_then_accepted(alices, letter, lambda: failpoints.disarm("before_insert"))


def test_it_blames_nobody_for_a_missing_grant(
    outsider: str, log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    """ProgrammingError, 42501."""
    settings.ATP_BUSY_AFTER_SECONDS = 0.5
    alices, letter = log_in(alice), write(alice, bob)
    arm("before_insert", say(f"SET LOCAL ROLE {outsider}", letter))
    assert_busy_then_accepted(alices, letter, lambda: failpoints.disarm("before_insert"))


def test_it_blames_nobody_for_a_missing_table(
    postgresql: None, log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    """ProgrammingError, 42P01."""
    settings.ATP_BUSY_AFTER_SECONDS = 0.5
    alices, letter = log_in(alice), write(alice, bob)
    with elsewhere() as server:
        server.execute("ALTER TABLE messaging_mailbox RENAME TO messaging_mailbox_gone")

        def mend() -> None:
            server.execute("ALTER TABLE messaging_mailbox_gone RENAME TO messaging_mailbox")

        try:
            assert_busy_then_accepted(alices, letter, mend)
        finally:
            server.execute(
                "ALTER TABLE IF EXISTS messaging_mailbox_gone RENAME TO messaging_mailbox"
            )


def test_it_refuses_an_envelope_only_where_others_pass(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    """An envelope that fails where nothing else is tried may fail for the hub's own fault."""
    alices, poison = log_in(alice), write(alice, bob)

    def choke(text: object) -> None:
        if poison.message_id in str(text):
            raise Broken

    arm("before_parse", choke)
    assert alices.submit(poison)["status"] == "busy"
    assert alices.submit(poison)["status"] == "busy"
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert alices.submit(poison)["status"] == "invalid"
    assert Entry.objects.get(message_id=poison.message_id).kind == Kind.ENVELOPE_POISONED


def test_it_answers_busy_in_time_where_batches_fail_and_finds_the_one_at_fault(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    """Each failure takes its time, so no round of ten seconds is enough to halve a batch."""
    settings.ATP_BUSY_AFTER_SECONDS = 1.0
    alices = log_in(alice)
    letters = [write(alice, bob) for _ in range(16)]
    poison = letters[5]
    tries: list[str] = []

    def choke(text: object) -> None:
        if poison.message_id in str(text):
            tries.append(poison.message_id)
            threading.Event().wait(0.35)
            raise Broken

    arm("before_parse", choke)
    alices.send_together(*letters)
    first = [alices.receipt(letter)["status"] for letter in letters]
    assert first[5] == "busy"
    assert len(tries) <= 4
    final: dict[str, str] = {}
    waiting = letters
    for _ in range(12):
        alices.send_together(*waiting)
        heard = {letter.message_id: alices.receipt(letter)["status"] for letter in waiting}
        final |= {one: status for one, status in heard.items() if status != "busy"}
        waiting = [letter for letter in waiting if letter.message_id not in final]
        if not waiting:
            break
    assert final.pop(poison.message_id) == "invalid"
    assert set(final.values()) == {"accepted"}


def test_it_answers_busy_by_when_an_envelope_arrived(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    """What waited behind a batch that nobody could judge has waited as long, and is not tried on
    for as long again."""
    settings.ATP_BUSY_AFTER_SECONDS = 1.0
    alices = log_in(alice)
    letters = [write(alice, bob) for _ in range(site.ATP_BATCH_ENVELOPES * 3 // 4)]
    tries = dict.fromkeys((letter.message_id for letter in letters), 0)

    def away(stages: object) -> None:
        for item in stages if isinstance(stages, list) else []:
            tries[item.message_id] += item.message_id in tries
        raise psycopg.errors.CannotConnectNow("the database system is starting up")

    arm("before_insert", away)
    alices.send_together(*letters)
    assert {alices.receipt(letter)["status"] for letter in letters} == {"busy"}
    assert max(tries.values()) > 1
    assert tries[letters[-1].message_id] <= 1


@pytest.fixture
def threads(database: None) -> Iterator[DatabaseThreads]:
    with DatabaseThreads(1) as threads:
        yield threads
        result(threads.submit(connections.close_all), "the connections being closed")


def write_something() -> None:
    """Write in a transaction, and take it back."""
    with transaction.atomic():
        Batch.objects.create(id=str(uuid.uuid4()), unstored=[], judged_at=datetime.now(UTC))
        transaction.set_rollback(True)


def read_something() -> None:
    Batch.objects.filter(id=uuid.uuid4()).exists()


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("trouble", ["read-only", "role", "forgotten"])
def test_a_thread_gets_over_a_session_that_answers_and_does_not_work(
    trouble: str, outsider: str, threads: DatabaseThreads
) -> None:
    """After a failover, or behind a pool that resets sessions: it never works again by itself."""
    statement = {
        "read-only": "SET default_transaction_read_only = on",
        "role": f"SET ROLE {outsider}",
        "forgotten": "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",  # unseen by the driver
    }[trouble]
    work = read_something if trouble == "forgotten" else write_something
    for _ in range(6):  # often enough to be prepared
        result(threads.submit(work), "work")
    result(threads.submit(run, statement), "a session that does not work")
    with pytest.raises(DatabaseProblem):
        result(threads.submit(work), "work")
    result(threads.submit(work), "work on a new session")


def test_threads_share_what_one_found(postgresql: None) -> None:
    """One failed write, not one for each thread."""
    together = threading.Barrier(2)

    def at_once(statement: str) -> None:
        def one() -> None:
            together.wait(20)
            run(statement)

        for future in [pool.submit(one) for _ in range(2)]:
            result(future, "both threads")

    with DatabaseThreads(2) as pool:
        at_once("SET default_transaction_read_only = on")
        with pytest.raises(DatabaseProblem):
            result(pool.submit(write_something), "a write")
        at_once("CREATE TEMPORARY TABLE atp_test_writes (id int)")
        for future in [pool.submit(connections.close_all) for _ in range(2)]:
            result(future, "closed connections")


def test_a_worker_gets_over_a_read_only_session(
    postgresql: None, log_in: LogIn, alice: Player, bob: Player, threads: DatabaseThreads
) -> None:
    alices, letter = log_in(alice), write(alice, bob)
    node = process_node.current()
    frames = [[alices.welcome["session"], alice.id, letter.text]]
    batch: dict[str, Any] = {"batch": str(uuid.uuid4()), "channel": node.channel, "frames": frames}
    batch |= {"announce": False, "dispatched": time.time(), "traceparent": ""}
    result(threads.submit(run, "SET default_transaction_read_only = on"), "a read-only session")
    result(threads.submit(check_envelopes, batch), "a batch that is not judged")
    assert alices.unasked() == []
    result(threads.submit(check_envelopes, batch), "a batch that is judged")
    assert alices.receipt(letter)["status"] == "accepted"

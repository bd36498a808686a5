"""Probes: each asks one service whether it works, and answers or raises in bounded time.

The start of a process, `/readyz`, `/metrics` and the state of the hub all use these functions. So
they report the same trouble in the same words, those of `ServiceAway`.

A `Probe` asks in its own thread. A probe that hangs keeps its thread, and no second thread is
started. So a dead Redis or many requests for the health of the hub cost at most one thread for
each service.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import redis
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from kombu.exceptions import OperationalError as BrokerError
from redis.backoff import NoBackoff
from redis.retry import Retry

from messaging.models import Batch
from messaging.periodic.failures import first_line
from registry.storage.patience import waiting_at_most

T_co = TypeVar("T_co", covariant=True)

PROBE_SECONDS = 3.0  # without an answer, then the service counts as down
FRESH_SECONDS = 1.0  # an answer up to this age is used again
# Words of errors that waiting does not mend. PostgreSQL has no code for a refused connection.
LASTING = (
    "authentication", "password", "no pg_hba.conf entry", "does not exist", "certificate", "ssl",
    "permission denied", "invalid", "noauth", "wrongpass", "noperm", "access_refused", "vhost",
    "connection pooler", "no such database", "no such user",  # the last two are pgbouncer's
)  # fmt: skip
LEAST_FREE_BYTES = 4 << 20  # of SQLite's disk: four batches of the largest size
AMQP_NOT_FOUND = "404"  # the queue is empty (Redis) or not declared yet


class Service(StrEnum):
    """What a hub needs besides itself, as sentences name it."""

    DATABASE = "The database"
    LAYER = "Redis at ATP_REDIS_URL"
    BROKER = "The broker at ATP_BROKER_URL"


class ServiceAway(Exception):
    """A service can't be used; the message is one sentence that says why, without a secret.

    `may_pass` is false where only a person can change that: a wrong password, a missing database.
    """

    def __init__(self, service: Service, problem: BaseException) -> None:
        super().__init__(f"{service} can't be used: {first_line(problem)}")
        self.may_pass = _may_pass(problem)


class Probe(Generic[T_co]):
    """A check of one service, shared by all threads of this process; `ask` does the check.

    `fresh_seconds` is the age up to which an answer is given again.
    """

    def __init__(self, ask: Callable[[], T_co], *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._future: Future[T_co] | None = None
        self._began = 0.0

    def begin(self) -> Future[T_co]:
        """Start the check, unless it runs or ended lately; return its future."""
        with self._lock:
            if self._future is None or (self._future.done() and self._age() > self._fresh_seconds):
                self._future, self._began = Future(), time.monotonic()
                # No pool: at the end of the process Python waits for the threads of pools.
                threading.Thread(target=self._run, args=(self._future,), daemon=True).start()
            return self._future

    def result(self, *, seconds: float | None = None) -> T_co:
        """Return what the check found.

        Raises what the check raised, or `TimeoutError` if it takes more than `seconds` (by default
        `PROBE_SECONDS`) from its start.
        """
        future = self.begin()
        limit = PROBE_SECONDS if seconds is None else seconds
        return future.result(max(0.0, limit - self._age()))

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _run(self, future: Future[T_co]) -> None:
        try:
            try:
                with waiting_at_most(PROBE_SECONDS):
                    answer = self._ask()
            finally:
                connections.close_all()  # the thread ends, and its connections are its own
        except BaseException as problem:  # `result` raises it to each caller
            future.set_exception(problem)
        else:
            future.set_result(answer)


def reach_database() -> None:
    """Run a query. Raises `ServiceAway` if that fails; the settings limit the wait.

    A PostgreSQL behind a connection pooler must give each connection a session of its own.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if connection.vendor == "postgresql":
            _connect_beside()
    except (DatabaseError, sqlite3.Error) as exc:
        raise ServiceAway(Service.DATABASE, exc) from exc


def _connect_beside() -> None:
    """Connect twice more, one after the other, while the connection of this thread is open.

    A session that is not the connection's own is refused when it is made (atp_site.postgresql). The
    first connection could have this thread's, and the second one that of the first, with what that
    left in it. Raises `DatabaseError`.
    """
    for _ in range(2):
        with closing(connection.copy()) as other, other.cursor() as cursor:
            cursor.execute("PREPARE atp_left_behind AS SELECT 1")


def write_to_database() -> None:
    """Let the database take a row as a batch writes one, and take it back.

    A server that answers may still be read-only, or lack a table or a right. On SQLite this also
    looks at the disk, which a write that is taken back does not reach. Raises `ServiceAway`.
    """
    try:
        with transaction.atomic():
            Batch.objects.create(id=str(uuid.uuid4()), unstored=[], judged_at=datetime.now(UTC))
            transaction.set_rollback(True)
        if connection.vendor == "sqlite":
            _need_space(Path(str(connection.settings_dict["NAME"])).parent)
    except (DatabaseError, sqlite3.Error, OSError) as exc:
        raise ServiceAway(Service.DATABASE, exc) from exc


def _need_space(folder: Path) -> None:
    """Raise `OSError` where the disk of `folder` has not the room for a few batches."""
    disk = os.statvfs(folder)
    blocks = disk.f_bavail if os.geteuid() else disk.f_bfree  # root may use the rest too
    if blocks * disk.f_frsize < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, f"less than {LEAST_FREE_BYTES >> 20} MiB are free in {folder}")


def is_migrated() -> bool:
    """Return whether all migrations are applied. Raises `DatabaseError` if it can't read that."""
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def reach_layer(*, seconds: float) -> None:
    """Publish a message that no process reads; Redis may take `seconds` for each answer.

    The layer only publishes, so a Redis without room for keys still works for it. If the layer is
    in this process's memory, do nothing. Raises `ServiceAway` if the publishing fails.
    """
    for host in layer_hosts():
        waits = {"socket_connect_timeout": seconds, "socket_timeout": seconds}
        arguments = {**host, **waits, "retry": Retry(NoBackoff(), 0)}
        try:
            with redis.Redis.from_url(arguments.pop("address"), **arguments) as client:
                client.publish(f"atp:health:{uuid.uuid4()}", b"")
        except redis.RedisError as exc:
            raise ServiceAway(Service.LAYER, exc) from exc


def reach_broker(*, seconds: float) -> int:
    """Return how many tasks wait in the broker's queue; it may take `seconds` for each answer.

    The number is 0 if tasks run in this process. Raises `ServiceAway` if the broker fails.
    """
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return 0
    broker = current_app.connection_for_read(
        connect_timeout=seconds, transport_options=_broker_time_limits(seconds)
    )
    # A refused login or virtual host is not an OperationalError; that one is about the network.
    refusals: tuple[type[BaseException], ...] = (
        BrokerError,
        OSError,
        *broker.connection_errors,
        *broker.channel_errors,
    )
    try:
        with broker:
            return _waiting_tasks(broker)
    except refusals as exc:
        raise ServiceAway(Service.BROKER, exc) from exc


def _may_pass(problem: BaseException) -> bool:
    if isinstance(problem, sqlite3.Error) or isinstance(problem.__cause__, sqlite3.Error):
        return False  # a file does not start
    said = str(problem).lower()
    return not any(word in said for word in LASTING)


def layer_hosts() -> list[dict[str, Any]]:
    """Return the layer's Redis: `address`, and redis-py's arguments, such as those of TLS.

    The list is empty if the layer is in this process's memory.
    """
    hosts: list[dict[str, Any]] = settings.CHANNEL_LAYERS["default"]["CONFIG"].get("hosts", [])
    return hosts


def _broker_time_limits(seconds: float) -> dict[str, float]:
    if str(settings.CELERY_BROKER_URL).startswith("amqp"):
        return {"read_timeout": seconds, "write_timeout": seconds}
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def _waiting_tasks(broker: Any) -> int:
    channel = broker.default_channel
    try:
        queue = channel.queue_declare(settings.CELERY_TASK_DEFAULT_QUEUE, passive=True)
    except broker.channel_errors as problem:
        if str(getattr(problem, "reply_code", "")) == AMQP_NOT_FOUND:
            return 0
        raise
    return int(queue.message_count)

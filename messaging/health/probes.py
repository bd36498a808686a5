"""Probes: each asks one service whether it works, and answers or raises in bounded time.

The start of a process, `/readyz`, `/metrics` and the state of the hub ask by these functions, and
tell the same trouble in the same words: those of `ServiceAway`.

A `Probe` asks in a thread of its own. One that hangs keeps this one thread, and no second thread is
started beside it. So neither a dead Redis nor many requests for the health of the hub cost more
than one thread a service.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, Generic, TypeVar

import redis
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection, connections
from django.db.migrations.executor import MigrationExecutor
from kombu.exceptions import OperationalError as BrokerError
from redis.backoff import NoBackoff
from redis.retry import Retry

from messaging.periodic.failures import first_line
from registry.storage.patience import waiting_at_most

T_co = TypeVar("T_co", covariant=True)

PROBE_SECONDS = 3.0  # until a service that has not answered counts as one that does not
FRESH_SECONDS = 1.0  # an answer so old is given again
AMQP_NOT_FOUND = "404"  # of a queue that is empty (Redis), or not declared yet


class Service(StrEnum):
    """What a hub needs besides itself, as sentences name it."""

    DATABASE = "The database"
    LAYER = "Redis at ATP_REDIS_URL"
    BROKER = "The broker at ATP_BROKER_URL"


class ServiceAway(Exception):
    """A service can't be used; the message is one sentence that says why, without a secret."""

    def __init__(self, service: Service, problem: BaseException) -> None:
        super().__init__(f"{service} can't be used: {first_line(problem)}")


class Probe(Generic[T_co]):
    """A function that asks a service, to be called by any number of threads of this process.

    `fresh_seconds` is the age up to which an answer is given again.
    """

    def __init__(self, ask: Callable[[], T_co], *, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._future: Future[T_co] | None = None
        self._began = 0.0

    def begin(self) -> Future[T_co]:
        """Begin to ask, unless a thread asks now or has a fresh answer."""
        with self._lock:
            if self._future is None or (self._future.done() and self._age() > self._fresh_seconds):
                self._future, self._began = Future(), time.monotonic()
                # No pool: at the end of the process Python waits for the threads of pools.
                threading.Thread(target=self._run, args=(self._future,), daemon=True).start()
            return self._future

    def result(self, *, seconds: float | None = None) -> T_co:
        """The answer. Raises what the function raised, or `TimeoutError` where there is none.

        The wait ends `seconds` (by default `PROBE_SECONDS`) after the question was asked.
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
                connections.close_all()  # this thread ends, and no other uses its connections
        except BaseException as problem:  # the caller of `result` gets it
            future.set_exception(problem)
        else:
            future.set_result(answer)


def reach_database() -> None:
    """Let the database answer a query. Raises `ServiceAway`; the settings bound the wait."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, sqlite3.Error) as exc:
        raise ServiceAway(Service.DATABASE, exc) from exc


def is_migrated() -> bool:
    """Whether no migration is left to do. Raises `DatabaseError` where that can't be read."""
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


def reach_layer(*, seconds: float) -> None:
    """Publish a word that no process reads; each answer of Redis may take `seconds`.

    To publish is all that the layer does, so a Redis without room for keys still counts as there.

    Does nothing where the layer is the memory of this process. Raises `ServiceAway`.
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
    """How many tasks wait in the broker's queue; each answer of it may take `seconds`.

    Returns 0 where tasks run within this process. Raises `ServiceAway`.
    """
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return 0
    broker = current_app.connection_for_read(
        connect_timeout=seconds, transport_options=_broker_time_limits(seconds)
    )
    # A login or a virtual host that is refused is no OperationalError, which is about the network.
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


def layer_hosts() -> list[dict[str, Any]]:
    """The layer's Redis: `address` and redis-py's arguments, those of TLS among them.

    The list is empty where the layer is the memory of this process.
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

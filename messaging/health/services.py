"""Check the database, the layer and the broker from this process."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from kombu import Connection as BrokerConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from messaging.health.models import Process
from messaging.models import Node
from messaging.periodic.models import BackgroundTask
from registry.models import Hub

SOCKET_SECONDS = 1  # for one answer of Redis or of the broker
MISSED_FOR = timedelta(minutes=10)  # then a process that went silent was replaced, or given up


@dataclass(frozen=True, slots=True)
class Registered:
    """The hub's processes and tasks in the database; `now` is the database's clock.

    `nodes` are those with a lease. `processes` are the workers and beats that gave a sign of life
    within `MISSED_FOR` and did not stop on request. `tasks` maps names to rows.
    """

    now: datetime
    nodes: Sequence[Node]
    processes: Sequence[Process]
    tasks: Mapping[str, BackgroundTask]


def registered_now() -> Registered:
    """Read processes and tasks, in four short queries. Raises `DatabaseError` if it is away."""
    seen_lately = Q(stopped_at=None, seen_at__gt=Now() - MISSED_FOR)
    return Registered(
        now=Hub.objects.values_list(Now(), flat=True).get(pk=Hub.SINGLETON_ID),
        nodes=list(Node.objects.filter(lease_until__gt=Now())),
        processes=list(Process.objects.filter(seen_lately)),
        tasks={row.name: row for row in BackgroundTask.objects.all()},
    )


def look_at_database() -> Registered:
    """Read processes and tasks, and close the connection: the probe's thread ends after this."""
    try:
        return registered_now()
    finally:
        connection.close()  # the thread ends, and its connection is its own


def look_at_layer() -> None:
    """Write a short-lived key to the layer's Redis. Raises `redis.RedisError` if that fails."""
    for host in layer_hosts():
        with redis.Redis.from_url(
            host,
            socket_connect_timeout=SOCKET_SECONDS,
            socket_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            client.set(f"atp:health:{uuid.uuid4()}", b"", px=1)


def look_at_broker() -> int:
    """Open a channel to the broker; return how many tasks wait in the queue.

    Raises the connection errors of kombu, or `OSError`, if that fails.
    """
    options = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS}
    transport = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS, **options} if _is_redis() else {}
    with BrokerConnection(
        settings.CELERY_BROKER_URL, connect_timeout=SOCKET_SECONDS, transport_options=transport
    ) as broker:
        broker.ensure_connection(max_retries=0, timeout=SOCKET_SECONDS)
        channel: Any = broker.channel()
        with contextlib.suppress(
            *broker.channel_errors
        ):  # the queue exists only after the first task
            queue = channel.queue_declare(settings.CELERY_TASK_DEFAULT_QUEUE, passive=True)
            return int(queue.message_count)
    return 0


def layer_hosts() -> list[str]:
    """Return the URLs of the layer's Redis; none if the layer is in this process's memory."""
    return [h["address"] for h in settings.CHANNEL_LAYERS["default"]["CONFIG"].get("hosts", [])]


def _is_redis() -> bool:
    return str(settings.CELERY_BROKER_URL).startswith("redis")

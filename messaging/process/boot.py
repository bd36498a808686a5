"""Prepare a hub before it serves.

Each obstacle raises `StartRefused` with one sentence that says what is wrong and what to do.
"""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.db import DatabaseError, connection

from messaging.health.probes import (
    Service,
    ServiceAway,
    is_migrated,
    reach_broker,
    reach_database,
    reach_layer,
)
from messaging.process.waiting import Pause, wait_for
from registry.bootstrap import ensure_hub
from registry.hub.actions import session_key
from registry.hub.keyring import SealBroken
from registry.officers.first_officer import FirstOfficer, make_first_officer
from registry.storage.patience import waiting_at_most
from registry.trail.triggers import missing_triggers

logger = logging.getLogger(__name__)

BACKLOG = 2048  # connections the kernel keeps while the hub is busy
REACH_SECONDS = 5
BOOT_LOCK = 0x4154505F  # PostgreSQL advisory lock: one process at a time migrates and makes keys


class StartRefused(Exception):
    """An obstacle to the start; the message is one sentence for the person who started the hub."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A hub that is ready to serve, with its listening socket.

    `officer` is `None` unless this start made one. `lock` is the open lock file of an SQLite hub,
    which keeps a second hub out while it is open; `None` on PostgreSQL.
    """

    listener: socket.socket
    hub_id: str
    officer: FirstOfficer | None
    lock: IO[str] | None


def check_settings() -> None:
    """Run Django's system checks and log their warnings.

    Raises `StartRefused` with the first error, for example for settings that contradict.
    """
    for found in checks.run_checks():
        if found.is_silenced():
            continue
        sentence = f"{found.msg} {found.hint or ''}".strip()
        if found.is_serious():
            raise StartRefused(sentence)
        logger.warning("%s", sentence)


def prepare(*, host: str, port: int) -> Prepared:
    """Take the lock and the port, migrate the database, make the keys and the first officer.

    A second run on the same data changes nothing. Raises `StartRefused` if the hub can't start.
    """
    check_settings()
    _need_proxy(host)
    lock = _lock_database()
    listener = listen(host, port)
    try:
        hub_id, officer = bring_up_to_date()
    except BaseException:
        listener.close()
        raise
    return Prepared(listener, hub_id, officer, lock)


def prepare_celery() -> None:
    """Check settings and services for a worker or beat. It does not migrate: only nodes do.

    Raises `StartRefused` without a broker, or if a service does not answer, or if the database is
    not up to date.
    """
    if settings.CELERY_TASK_ALWAYS_EAGER:
        raise StartRefused(
            "Set ATP_BROKER_URL to a Redis or RabbitMQ, for example redis://127.0.0.1:6379/1: "
            "without one the hub runs its tasks by itself."
        )
    check_settings()
    try:
        reach_services()
        if not is_migrated():
            raise StartRefused(
                "The database is not up to date: run `manage.py migrate`, or start a node."
            )
    except DatabaseError as exc:
        raise StartRefused(str(ServiceAway(Service.DATABASE, exc))) from exc
    finally:
        connection.close()  # the child processes of a worker must not share it


def bring_up_to_date(*, pause: Pause = time.sleep) -> tuple[str, FirstOfficer | None]:
    """Check the services, migrate, make the keys and the first officer; one process at a time.

    Return the hub's id, and the officer if this call made it. Raises `StartRefused` if a service
    does not answer, if the trail is not protected or if the key-encryption key is wrong.
    """
    try:
        reach_services(pause=pause)
        with _alone():
            _migrate()
            _check_trail()
            hub_id = ensure_hub().hub_id
            session_key()  # unseals it: a wrong key-encryption key fails here, not at a login
            return hub_id, make_first_officer()
    except (DatabaseError, sqlite3.Error) as exc:
        raise StartRefused(str(ServiceAway(Service.DATABASE, exc))) from exc
    except SealBroken as exc:
        raise StartRefused(f"The keys of this hub can't be used: {exc}") from exc


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process migrate at a time, by an advisory lock; SQLite hubs have the lock file."""
    if connection.vendor != "postgresql":
        yield
        return
    with waiting_at_most(None), connection.cursor() as cursor:  # another node may migrate
        cursor.execute("SELECT pg_advisory_lock(%s)", [BOOT_LOCK])
    try:
        yield
    finally:  # PostgreSQL releases the lock of a broken connection by itself
        if connection.connection is not None and not connection.connection.broken:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [BOOT_LOCK])


def _lock_database() -> IO[str] | None:
    """Lock an SQLite file against a second hub; return `None` on PostgreSQL, where many may run."""
    if connection.vendor != "sqlite":
        return None
    database = Path(str(connection.settings_dict["NAME"]))
    try:
        lock = database.with_suffix(".lock").open("a+", encoding="ascii")
    except OSError as exc:
        raise StartRefused(
            f"The folder {database.parent} can't be written: {exc.strerror}. "
            "Set ATP_DATA_DIR to another one."
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.seek(0)
        process = lock.read().strip() or "unknown"
        lock.close()
        raise StartRefused(
            f"Another hub (process {process}) already runs on the data in {database.parent}. "
            "Stop it, or set ATP_DATA_DIR and ATP_PORT to run a second one."
        ) from exc
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _need_proxy(host: str) -> None:
    """Refuse to listen beyond this machine, unless settings say that a proxy with TLS connects."""
    if ipaddress.ip_address(host).is_loopback:
        return
    if not settings.ATP_PUBLIC_URL.startswith("https://"):
        raise StartRefused(
            f"On {host} the hub listens only for a proxy that speaks TLS: set ATP_PUBLIC_URL to "
            "the https address that agents dial, or leave ATP_HOST at 127.0.0.1."
        )
    if not settings.ATP_TRUSTED_PROXIES:
        raise StartRefused(
            f"On {host} anyone may claim to be the proxy: set ATP_TRUSTED_PROXIES to its address "
            "or network, or leave ATP_HOST at 127.0.0.1."
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on this address and port. Raises `StartRefused` if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise StartRefused(
            f"Port {port} on {host} can't be used: {os.strerror(exc.errno or 0)}. "
            "Set ATP_PORT to another one."
        ) from exc


def reach_services(*, pause: Pause = time.sleep) -> None:
    """Connect to the database, Redis and the broker, and wait while they start.

    `pause` waits so many seconds, and ends the wait if it returns true. Raises `StartRefused` if
    one of them can't be reached.
    """
    try:
        wait_for(_reach_all, pause=pause)
    except ServiceAway as away:
        raise StartRefused(str(away)) from away


def reach_layer_and_broker(*, pause: Pause = time.sleep) -> None:
    """Connect to Redis and the broker, if they are set. Raises `StartRefused` if one fails."""
    try:
        wait_for(_reach_layer_and_broker, pause=pause)
    except ServiceAway as away:
        raise StartRefused(str(away)) from away


def _reach_all() -> None:
    reach_database()
    _reach_layer_and_broker()


def _reach_layer_and_broker() -> None:
    reach_layer(seconds=REACH_SECONDS)
    reach_broker(seconds=REACH_SECONDS)


def _check_trail() -> None:
    """Refuse to start without the triggers that make the trail append-only."""
    if missing := missing_triggers():
        raise StartRefused(
            f"The trail is not protected: {', '.join(missing)} missing. Find out who dropped that, "
            "then run `manage.py migrate --skip-checks`, which makes it again."
        )


def _migrate() -> None:
    """Migrate only if a migration is missing: the command writes to the database in any case."""
    if not is_migrated():
        call_command("migrate", interactive=False, verbosity=0)

"""What happens before a hub serves: each obstacle is one clear sentence, nothing is half done."""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import socket
import sqlite3
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
    """The hub can't start; the message is one sentence for the person who started it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A hub that is ready to serve: its open socket, and the lock that is held while it lives."""

    listener: socket.socket
    hub_id: str
    officer: FirstOfficer | None
    lock: IO[str] | None


def check_settings() -> None:
    """Refuse settings that do not fit together; raises `StartRefused` with the first reason."""
    for found in checks.run_checks():
        if found.is_silenced():
            continue
        sentence = f"{found.msg} {found.hint or ''}".strip()
        if found.is_serious():
            raise StartRefused(sentence)
        logger.warning("%s", sentence)


def prepare(*, host: str, port: int) -> Prepared:
    """Take the lock and the port, bring the database up to date, make keys and first officer.

    A second run on the same data changes nothing. Raises `StartRefused`.
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
    """Reach the services for a worker or beat; only nodes change the database.

    Raises `StartRefused`.
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
        connection.close()  # or the children of a worker share it


def bring_up_to_date() -> tuple[str, FirstOfficer | None]:
    """Reach the services, migrate, make keys and first officer; one process at a time.

    Returns the hub's id, and the officer where this call made it. Raises `StartRefused`.
    """
    try:
        reach_services()
        with _alone():
            _migrate()
            _check_trail()
            hub_id = ensure_hub().hub_id
            session_key()  # opens it: a wrong key-encryption key shows now, not at the first agent
            return hub_id, make_first_officer()
    except (DatabaseError, sqlite3.Error) as exc:
        raise StartRefused(str(ServiceAway(Service.DATABASE, exc))) from exc
    except SealBroken as exc:
        raise StartRefused(f"The keys of this hub can't be used: {exc}") from exc


@contextmanager
def _alone() -> Iterator[None]:
    """Keep nodes that start together from migrating together; SQLite has the lock file for it."""
    if connection.vendor != "postgresql":
        yield
        return
    with waiting_at_most(None), connection.cursor() as cursor:  # another node may migrate
        cursor.execute("SELECT pg_advisory_lock(%s)", [BOOT_LOCK])
    try:
        yield
    finally:  # a session that broke has let the lock go by itself
        if connection.connection is not None and not connection.connection.broken:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [BOOT_LOCK])


def _lock_database() -> IO[str] | None:
    """Keep a second hub off an SQLite file; on PostgreSQL many nodes are one hub."""
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
    """What is not TLS does not leave the machine: beyond it, only a proxy with TLS is served."""
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
    """An open socket on that address and port; raises `StartRefused`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise StartRefused(
            f"Port {port} on {host} can't be used: {os.strerror(exc.errno or 0)}. "
            "Set ATP_PORT to another one."
        ) from exc


def reach_services() -> None:
    """Ask the database, Redis and the broker for a sign of life; raises `StartRefused`."""
    try:
        reach_database()
    except ServiceAway as away:
        raise StartRefused(str(away)) from away
    reach_layer_and_broker()


def reach_layer_and_broker() -> None:
    """Ask Redis and the broker, where there are any; raises `StartRefused`."""
    try:
        reach_layer(seconds=REACH_SECONDS)
        reach_broker(seconds=REACH_SECONDS)
    except ServiceAway as away:
        raise StartRefused(str(away)) from away


def _check_trail() -> None:
    """Without its triggers the trail could be rewritten unseen: then nothing starts."""
    if missing := missing_triggers():
        raise StartRefused(
            f"The trail is not protected: {', '.join(missing)} missing. Find out who dropped that, "
            "then run `manage.py migrate --skip-checks`, which makes it again."
        )


def _migrate() -> None:
    """Migrate where something is to be done: the command itself would write in any case."""
    if not is_migrated():
        call_command("migrate", interactive=False, verbosity=0)

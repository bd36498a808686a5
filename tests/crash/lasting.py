"""Faults by which an engine is there and does not work, and a process that stops with its locks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.crash.agenda import Agenda, NotNow
from tests.crash.blows import Blows
from tests.crash.company import Company
from tests.crash.engines import Engines, Ways
from tests.disks import Disk

READ_ONLY_SECONDS = (2.0, 6.0)
# After new sessions may write, those of before may not; longer than the hub may take to heal.
KEPT_READ_ONLY_SECONDS = 20.0
BURIED_SECONDS = (
    19.0  # until keepalives end forgotten connections, as a server of PostgreSQL has them
)
FULL_SECONDS = (3.0, 8.0)
STOPPED_SECONDS = 20.0
WOKEN_SECONDS = 1.0  # for what it was about to do
STOPS_WITHIN_SECONDS = 30.0
STOPPING_PLACES = ("before_insert", "before_commit")
LOOK_SECONDS = 0.1

Struck = tuple[str, float]  # the victim, empty if nothing happened, and for how many seconds


@dataclass(slots=True)
class Lasting:
    """The maker of these faults. Each method makes one, and puts its end on the agenda."""

    company: Company
    agenda: Agenda
    blows: Blows
    chance: random.Random
    engines: Engines | None = None
    ways: Ways | None = None
    database: str = ""  # the hub's
    disk: Disk | None = None
    is_ending: bool = False  # no fault may begin any more
    _is_read_only: bool = False
    _is_stopping: bool = False

    @property
    def kinds(self) -> set[str]:
        """Return what can fail here."""
        return {
            *(("layer", "broker") if self.ways is not None else ()),
            *(("disk",) if self.disk is not None else ()),
        }

    def read_only(self, _kind: str) -> Struck:
        """Take no writes for a while, as after a failover.

        When new sessions may write again, the fault ends; the sessions of before still may not.
        """
        if self._is_read_only:
            return "", 0.0
        try:
            with self._server() as server:
                server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
                server.execute("SELECT pg_reload_conf()")
        except NotNow:
            return "", 0.0
        self._is_read_only = True
        seconds = self.chance.uniform(*READ_ONLY_SECONDS)
        self.agenda.after(seconds, self._let_new_sessions_write)
        return "postgres", seconds

    def _let_new_sessions_write(self) -> None:
        with self._server() as server:
            server.execute(
                sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = off").format(
                    sql.Identifier(self.database)
                )
            )
        self.blows.ended("read-only postgres")
        self.agenda.after(KEPT_READ_ONLY_SECONDS, self._let_all_sessions_write)

    def _let_all_sessions_write(self) -> None:
        with self._server() as server:
            server.execute("ALTER SYSTEM RESET default_transaction_read_only")
            server.execute("SELECT pg_reload_conf()")
            server.execute(
                sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(
                    sql.Identifier(self.database)
                )
            )
        self._is_read_only = False

    def mute(self, kind: str) -> Struck:
        """Swallow what the hub's connections of now to an engine say; new ones work at once."""
        proxy = getattr(self.ways, kind)
        proxy.forget()
        self.agenda.after(BURIED_SECONDS, proxy.bury)
        return kind, 0.0

    def fill(self, _kind: str) -> Struck:
        """Leave no space on the disk of the database for a while."""
        assert self.disk is not None
        self.disk.fill()
        seconds = self.chance.uniform(*FULL_SECONDS)
        self.agenda.after(seconds, self.disk.free)
        return "disk", seconds

    def stop(self, kind: str) -> Struck:
        """Stop a worker within its next transaction. The fault begins when it has come there.

        It is noted without a duration: the hub has to end it by itself.
        """
        if self._is_stopping:  # the other worker is to work on
            return "", 0.0
        self._is_stopping = True
        name = self.chance.choice(self.company.names(kind))
        place = self.chance.choice(STOPPING_PLACES)
        log = self.company.members[name].log
        read = log.stat().st_size
        self.company.kill(name, away_seconds=0.0)
        self.company.arm(name, f"stop@{place}:{self.chance.randint(1, 3)}")
        until = time.monotonic() + STOPS_WITHIN_SECONDS

        def look() -> None:
            with log.open("rb") as file:
                file.seek(read)
                stopped = b"this process stops here" in file.read()
            if stopped:
                self.blows.note("stop worker", f"{name} {place}", 0.0, alone=True)
                self.agenda.after(STOPPED_SECONDS, lambda: self._wake(name))
            elif self.is_ending or time.monotonic() > until:
                self._disarm(name)
            else:
                self.agenda.after(LOOK_SECONDS, look)

        self.agenda.after(LOOK_SECONDS, look)
        return "", 0.0

    def _wake(self, name: str) -> None:
        self.company.resume(name)
        self.agenda.after(WOKEN_SECONDS, lambda: self._disarm(name))

    def _disarm(self, name: str) -> None:
        """Start a worker again, because each of its children is to stop at the same place."""
        self.company.kill(name, away_seconds=0.0)
        self._is_stopping = False

    @contextmanager
    def _server(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect to the server itself. Raises `NotNow` if it is away."""
        assert self.engines is not None
        writing = "-c default_transaction_read_only=off"
        try:
            with psycopg.connect(
                self.engines.postgres.url, autocommit=True, connect_timeout=2, options=writing
            ) as server:
                yield server
        except psycopg.Error as problem:
            raise NotNow from problem

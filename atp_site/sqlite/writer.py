"""A lock that lets one connection at a time write to an SQLite file, in order of arrival.

SQLite lets one connection write and makes the others poll, so some of them wait for seconds. This
lock queues the threads of the process first (docs/design/decisions/0001-one-writer-on-sqlite.md).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

_CHECK_SECONDS = 1.0  # between two checks of a waiting thread that the holder is alive


@dataclass(slots=True, eq=False)
class _Claim:
    thread: threading.Thread
    connection: sqlite3.Connection
    granted: threading.Event = field(default_factory=threading.Event)


class WriterLock:
    """A lock held by a connection, not by a thread; the first to wait is the first to get it.

    If a thread ends inside a transaction, the lock rolls its connection back and passes on.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: _Claim | None = None
        self._queue: deque[_Claim] = deque()

    def acquire(self, connection: sqlite3.Connection, *, timeout: float) -> bool:
        """Wait until `connection` holds the lock; return False after `timeout` seconds.

        Return False at once if this thread holds the lock by another connection: it would wait for
        itself.
        """
        claim = _Claim(threading.current_thread(), connection)
        with self._guard:
            if self._holder is None:
                self._holder = claim
                return True
            if self._holder.thread is claim.thread:
                return False
            self._queue.append(claim)
        try:
            return self._wait(claim, monotonic() + timeout)
        except BaseException:  # after an interrupt, the lock must not stay with this connection
            if self._leave(claim):
                self.release(connection)
            raise

    def release(self, connection: sqlite3.Connection) -> None:
        """Pass the lock to the next in the queue; do nothing if `connection` does not hold it."""
        with self._guard:
            if self._holder is not None and self._holder.connection is connection:
                self._pass_on()

    def held_by(self, connection: sqlite3.Connection) -> bool:
        """Return whether `connection` holds the lock."""
        holder = self._holder
        return holder is not None and holder.connection is connection

    @property
    def waiting(self) -> int:
        """Return how many connections wait for the lock."""
        return len(self._queue)

    def _wait(self, claim: _Claim, deadline: float) -> bool:
        while not claim.granted.wait(min(_CHECK_SECONDS, max(0.0, deadline - monotonic()))):
            self._release_dead_holder()
            if monotonic() >= deadline:
                return self._leave(claim)
        return True

    def _leave(self, claim: _Claim) -> bool:
        """Stop waiting; return True if the lock was granted at the last moment and is kept."""
        with self._guard:
            if claim in self._queue:
                self._queue.remove(claim)
                return False
        return True

    def _release_dead_holder(self) -> None:
        with self._guard:
            if self._holder is None or self._holder.thread.is_alive():
                return
            with suppress(sqlite3.ProgrammingError):  # it is closed, which rolled it back
                self._holder.connection.rollback()
            self._pass_on()

    def _pass_on(self) -> None:
        self._holder = self._queue.popleft() if self._queue else None
        if self._holder is not None:
            self._holder.granted.set()


class WriterLocks:
    """The locks of this process, one for each database file."""

    def __init__(self) -> None:
        self._by_path: dict[str, WriterLock] = {}

    def of(self, path: str) -> WriterLock:
        """Return the lock of the database file at `path`, one for each process."""
        return self._by_path.get(path) or self._by_path.setdefault(path, WriterLock())

    def forget(self) -> None:
        """Drop all locks. A forked child needs this.

        It has no copy of the threads, so a lock that one of them holds would stay locked.
        """
        self._by_path.clear()


_locks = WriterLocks()
writer_lock = _locks.of
os.register_at_fork(after_in_child=_locks.forget)

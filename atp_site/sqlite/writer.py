"""One fair writer at a time for an SQLite file within this process.

SQLite lets one connection write and makes the others poll, which starves some of them for seconds
(docs/design/architecture.md#the-same-code-small-and-large). Threads queue here first, in order of
arrival.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

_CHECK_SECONDS = 1.0  # how often a waiting thread looks whether the writer is still alive


@dataclass(slots=True, eq=False)
class _Turn:
    thread: threading.Thread
    connection: sqlite3.Connection
    mine: threading.Event = field(default_factory=threading.Event)


class WriterLock:
    """A first-come, first-served lock whose holder is a connection, not a thread.

    A thread that ended inside a transaction doesn't keep the others out: its connection is rolled
    back and the next one goes on.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: _Turn | None = None
        self._queue: deque[_Turn] = deque()

    def acquire(self, connection: sqlite3.Connection, *, timeout: float) -> bool:
        """Wait for the turn of `connection`; False after `timeout` seconds.

        False at once where this very thread writes through another connection: it would wait for
        itself.
        """
        turn = _Turn(threading.current_thread(), connection)
        with self._guard:
            if self._holder is None:
                self._holder = turn
                return True
            if self._holder.thread is turn.thread:
                return False
            self._queue.append(turn)
        try:
            return self._wait(turn, monotonic() + timeout)
        except BaseException:  # an interrupt must not leave a turn without a taker
            if self._leave(turn):
                self.release(connection)
            raise

    def release(self, connection: sqlite3.Connection) -> None:
        """Hand over to the next in the queue; nothing happens where `connection` has no turn."""
        with self._guard:
            if self._holder is not None and self._holder.connection is connection:
                self._pass_on()

    def held_by(self, connection: sqlite3.Connection) -> bool:
        holder = self._holder
        return holder is not None and holder.connection is connection

    @property
    def waiting(self) -> int:
        """How many are queueing."""
        return len(self._queue)

    def _wait(self, turn: _Turn, deadline: float) -> bool:
        while not turn.mine.wait(min(_CHECK_SECONDS, max(0.0, deadline - monotonic()))):
            self._bury_the_dead()
            if monotonic() >= deadline:
                return self._leave(turn)
        return True

    def _leave(self, turn: _Turn) -> bool:
        """Give up waiting. True where the turn came at the last moment and is kept."""
        with self._guard:
            if turn in self._queue:
                self._queue.remove(turn)
                return False
        return True

    def _bury_the_dead(self) -> None:
        with self._guard:
            if self._holder is None or self._holder.thread.is_alive():
                return
            with suppress(sqlite3.ProgrammingError):  # closed already, and rolled back with that
                self._holder.connection.rollback()
            self._pass_on()

    def _pass_on(self) -> None:
        self._holder = self._queue.popleft() if self._queue else None
        if self._holder is not None:
            self._holder.mine.set()


class WriterLocks:
    """The locks of this process, one for each database file."""

    def __init__(self) -> None:
        self._by_path: dict[str, WriterLock] = {}

    def of(self, path: str) -> WriterLock:
        """The lock of the database file at `path`; made at the first call."""
        return self._by_path.get(path) or self._by_path.setdefault(path, WriterLock())

    def forget(self) -> None:
        """Begin anew: a child inherits no threads, so a lock that one held stays held in it."""
        self._by_path.clear()


_locks = WriterLocks()
writer_lock = _locks.of
os.register_at_fork(after_in_child=_locks.forget)

"""The outbox on disk: an SQLite file with the signed messages that have no receipt yet.

All functions block, and one thread must call them all. A message is in the file, synced to the
disk, when `put` returns; a crash at any time leaves it there whole, or not at all. The messages are
not encrypted. The file is locked while it is open: one client at a time uses it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atp.errors import ATPError, OutboxFull, OutboxInUse, OutboxUnusable
from atp.trust.envelope import Envelope, parse_envelope

__all__ = ["MOST_BYTES", "MOST_MESSAGES", "OutboxFile"]

MOST_MESSAGES: Final = 10_000
MOST_BYTES: Final = 64 * 1024 * 1024  # of signed messages

APPLICATION_ID: Final = 0x41_54_50_31  # "ATP1", in the header of the file
OWN_MODE: Final = 0o600  # the messages are in clear
OTHERS_MAY: Final = 0o077
VERSION: Final = 1
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_ACCESS: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_PRIMARY: Final = 0xFF  # the primary part of an extended code of SQLite

_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA secure_delete = ON",  # a message that was sent leaves no copy in free pages
)
_SCHEMA: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
    "CREATE TABLE owner (agent TEXT NOT NULL, hub TEXT NOT NULL)",
    "CREATE TABLE message (place INTEGER PRIMARY KEY AUTOINCREMENT,"
    " message_id TEXT NOT NULL UNIQUE, expires_at REAL NOT NULL,"
    " data BLOB NOT NULL, sha256 BLOB NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class _Size:
    messages: int
    size: int


class OutboxFile:
    """The outbox of `agent` at the hub `hub_id`, in the file `path`.

    Raises `OutboxInUse` if another client uses the file, `OutboxUnusable` if it is damaged or not
    of this agent and hub, and `OutboxFull` if it can't be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        agent: str,
        hub_id: str,
        most_messages: int = MOST_MESSAGES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._path = path
        self._owner = (agent, hub_id)
        self._most = _Size(most_messages, most_bytes)
        with self._told():
            self._database = _connect(path)
        try:
            with self._told():
                self._prepare()
                self._held = self._measure()
        except BaseException:
            self._database.close()
            raise

    def messages(self) -> list[tuple[Envelope, float]]:
        """Return the messages with the times at which they expire, in the order of `put`."""
        query = "SELECT expires_at, message_id, data, sha256 FROM message ORDER BY place"
        with self._told():
            rows = self._database.execute(query).fetchall()
        return [(self._read(*stored), expires_at) for expires_at, *stored in rows]

    def put(self, envelope: Envelope, expires_at: float) -> None:
        """Store a message. Raises `OutboxFull`; then nothing of it is stored."""
        data = envelope.canonical
        if (
            self._held.messages >= self._most.messages
            or self._held.size + len(data) > self._most.size
        ):
            raise OutboxFull(
                f"the outbox {self._path} has {self._held.messages} messages with"
                f" {self._held.size} bytes, and takes {self._most.messages} messages with"
                f" {self._most.size} bytes; this message was not sent. Send it again when the hub"
                " has taken some of them"
            )
        row = (envelope.message_id, expires_at, data, hashlib.sha256(data).digest())
        columns = "(message_id, expires_at, data, sha256)"
        statement = f"INSERT OR REPLACE INTO message {columns} VALUES (?, ?, ?, ?)"  # noqa: S608
        with self._told():
            self._database.execute(statement, row)
        self._held = _Size(self._held.messages + 1, self._held.size + len(data))

    def remove(self, message_ids: Iterable[str]) -> None:
        """Remove messages; ids that are not there are ignored."""
        with self._told():
            with self._transaction():
                ids = [(message_id,) for message_id in message_ids]
                self._database.executemany("DELETE FROM message WHERE message_id = ?", ids)
            self._held = self._measure()

    def close(self) -> None:
        """Close the file and unlock it."""
        self._database.close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")  # so no shared memory is needed
        is_new = self._is_new()
        for setting in _SETTINGS:
            self._database.execute(setting)
        if is_new:
            with self._transaction():
                for statement in _SCHEMA:
                    self._database.execute(statement)
                self._database.execute("INSERT INTO owner VALUES (?, ?)", self._owner)
        self._check()

    def _is_new(self) -> bool:
        """Return whether the file is empty. Raises `OutboxUnusable` if it is no outbox."""
        (application,) = self._database.execute("PRAGMA application_id").fetchone()
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return True
        if (application, version) != (APPLICATION_ID, VERSION):
            raise OutboxUnusable(
                f"{self._path} is not an outbox of this version of atp; give another path"
            )
        return False

    def _check(self) -> None:
        findings = self._database.execute("PRAGMA quick_check").fetchall()
        if findings != [("ok",)]:
            raise self._damaged(str(findings[0][0]))
        owner = self._database.execute("SELECT agent, hub FROM owner").fetchone()
        if owner != self._owner:
            agent, hub = owner or ("nobody", "no hub")
            raise OutboxUnusable(
                f"the outbox {self._path} is of {agent} at {hub}, not of {self._owner[0]} at"
                f" {self._owner[1]}; give each agent a file of its own"
            )

    def _measure(self) -> _Size:
        query = "SELECT count(*), coalesce(sum(length(data)), 0) FROM message"
        return _Size(*self._database.execute(query).fetchone())

    def _read(self, message_id: str, data: bytes, sha256: bytes) -> Envelope:
        if hashlib.sha256(data).digest() != sha256:
            raise self._damaged(f"the bytes of message {message_id} have changed")
        try:
            envelope = parse_envelope(data)
        except ATPError as problem:
            raise self._damaged(f"message {message_id} can't be read: {problem}") from problem
        if (envelope.message_id, envelope.sender) != (message_id, self._owner[0]):
            raise self._damaged(f"message {message_id} is another one than its row says")
        return envelope

    def _damaged(self, reason: str) -> OutboxUnusable:
        return OutboxUnusable(
            f"the outbox {self._path} is damaged ({reason}). Move the file away, with those"
            f" beside it whose names begin with {self._path.name}-, and start again: the client"
            " makes a new one. What was not sent yet is in the old one"
        )

    def _closed(self, reason: str) -> OutboxUnusable:
        return OutboxUnusable(
            f"the outbox {self._path} can't be opened ({reason}); give the path of a file in a"
            " folder that exists and that this user may write"
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of SQLite and of the system into typed ones."""
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & _PRIMARY
            if code in _BUSY:
                raise OutboxInUse(
                    f"another client uses the outbox {self._path}; give each process an outbox and"
                    " an agent of its own"
                ) from exc
            if code in _NO_ROOM:
                raise OutboxFull(
                    f"the outbox {self._path} can't be written ({exc}), so the message was not"
                    " sent. Free space on that disk, and send it again"
                ) from exc
            if code in _NO_ACCESS:
                raise self._closed(str(exc)) from exc
            raise self._damaged(str(exc)) from exc
        except OSError as exc:
            raise self._closed(exc.strerror or type(exc).__name__) from exc


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, which only this user may read; make it if it is missing.

    A file that is there is not opened here: to close it would end the locks that another client of
    this process has on it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWN_MODE))
    except FileExistsError:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a file") from None
        if mode & OTHERS_MAY:
            path.chmod(OWN_MODE)
    return sqlite3.connect(path, timeout=0, isolation_level=None)

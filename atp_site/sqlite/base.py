"""Django's SQLite backend with one fair writer: `ENGINE = "atp_site.sqlite"`.

A transaction takes the writer lock when it begins and releases it when it ends in any way. Nested
`atomic` blocks are savepoints of the same transaction. A single statement that writes outside
`atomic` takes the lock too. Reads outside `atomic` never wait
(docs/design/decisions/0001-one-writer-on-sqlite.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import base

from atp_site.sqlite.writer import WriterLock, writer_lock

if TYPE_CHECKING:
    # The stubs lack the methods that a backend overrides.
    class _Backend(base.DatabaseWrapper):
        def _start_transaction_under_autocommit(self) -> None: ...
        def _commit(self) -> None: ...
        def _rollback(self) -> None: ...
        def _close(self) -> None: ...
else:
    _Backend = base.DatabaseWrapper

_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLAC"})  # the first six letters


class DatabaseWrapper(_Backend):
    """The connection of one thread, which takes the writer lock to write."""

    def create_cursor(self, name: Any = None) -> Any:
        """Return a cursor that takes the writer lock for single statements."""
        return self.connection.cursor(factory=partial(_Cursor, wrapper=self))

    def acquire_writer(self) -> None:
        """Wait until this connection may write.

        Raises `sqlite3.OperationalError` after the time-out, as SQLite itself does.
        """
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        if not self._writer.acquire(self.connection, timeout=timeout):
            raise sqlite3.OperationalError("database is locked")

    def release_writer(self) -> None:
        """Release the writer lock, unless a transaction is open on this connection."""
        if self.connection is not None and not self.connection.in_transaction:
            self._writer.release(self.connection)

    @property
    def _writer(self) -> WriterLock:
        return writer_lock(str(self.settings_dict["NAME"]))

    def _start_transaction_under_autocommit(self) -> None:
        with self.wrap_database_errors:
            self.acquire_writer()
        try:
            super()._start_transaction_under_autocommit()
        finally:
            self.release_writer()

    def _commit(self) -> None:
        try:
            self._refuse_empty_commit()
            super()._commit()
        finally:
            self.release_writer()

    def _rollback(self) -> None:
        try:
            super()._rollback()
        finally:
            self.release_writer()

    def _close(self) -> None:
        connection, writer = self.connection, self._writer
        try:
            super()._close()
        finally:
            if connection is not None:
                writer.release(connection)

    def _refuse_empty_commit(self) -> None:
        """Raise an error for a commit after SQLite itself has rolled back.

        SQLite rolls back on some errors, such as a full disk. A commit after that would write
        nothing and seem to succeed.
        """
        connection = self.connection
        if connection is None or connection.in_transaction or not self._writer.held_by(connection):
            return
        with self.wrap_database_errors:
            raise sqlite3.OperationalError("the transaction was rolled back by SQLite")


class _Cursor(base.SQLiteCursorWrapper):
    """A cursor that takes the writer lock for statements that write outside a transaction."""

    def __init__(self, connection: Any, *, wrapper: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._wrapper = wrapper

    def execute(self, query: str, params: Any = None) -> Any:
        return self._as_writer(query, partial(super().execute, query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        return self._as_writer(query, partial(super().executemany, query, param_list))

    def _as_writer(self, query: str, run: Callable[[], Any]) -> Any:
        if self.connection.in_transaction or query.lstrip()[:6].upper() not in _WRITES:
            return run()
        self._wrapper.acquire_writer()
        try:
            return run()
        finally:
            self._wrapper.release_writer()

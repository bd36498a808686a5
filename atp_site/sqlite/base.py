"""Django's SQLite backend with one fair writer: `ENGINE = "atp_site.sqlite"`.

The lock is taken when a transaction begins and given back when it is over, however it ends.
Nested `atomic` blocks are savepoints of the same transaction. A single statement that writes
outside `atomic` queues too; reads outside `atomic` never do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db.backends.sqlite3 import base

from atp_site.sqlite.writer import WriterLock, writer_lock

if TYPE_CHECKING:
    # The stubs leave out what a backend is made to override.
    class _Backend(base.DatabaseWrapper):
        def _start_transaction_under_autocommit(self) -> None: ...
        def _commit(self) -> None: ...
        def _rollback(self) -> None: ...
        def _close(self) -> None: ...
else:
    _Backend = base.DatabaseWrapper

_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLAC"})  # the first six letters


class DatabaseWrapper(_Backend):
    """The connection of one thread."""

    def create_cursor(self, name: Any = None) -> Any:
        return self.connection.cursor(factory=partial(_Cursor, wrapper=self))

    def take_turn(self) -> None:
        """Wait until this connection may write; raises what SQLite itself would."""
        timeout = self.settings_dict["OPTIONS"]["timeout"]
        if not self._writer.acquire(self.connection, timeout=timeout):
            raise sqlite3.OperationalError("database is locked")

    def end_turn(self) -> None:
        """Let the next one write, unless a transaction is still open on this connection."""
        if self.connection is not None and not self.connection.in_transaction:
            self._writer.release(self.connection)

    @property
    def _writer(self) -> WriterLock:
        return writer_lock(str(self.settings_dict["NAME"]))

    def _start_transaction_under_autocommit(self) -> None:
        with self.wrap_database_errors:
            self.take_turn()
        try:
            super()._start_transaction_under_autocommit()
        finally:
            self.end_turn()

    def _commit(self) -> None:
        try:
            self._refuse_empty_commit()
            super()._commit()
        finally:
            self.end_turn()

    def _rollback(self) -> None:
        try:
            super()._rollback()
        finally:
            self.end_turn()

    def _close(self) -> None:
        connection, writer = self.connection, self._writer
        try:
            super()._close()
        finally:
            if connection is not None:
                writer.release(connection)

    def _refuse_empty_commit(self) -> None:
        """SQLite rolls back by itself on some errors, such as a full disk.

        A commit after that would be one of nothing, and be taken for success.
        """
        connection = self.connection
        if connection is None or connection.in_transaction or not self._writer.held_by(connection):
            return
        with self.wrap_database_errors:
            raise sqlite3.OperationalError("the transaction was rolled back by SQLite")


class _Cursor(base.SQLiteCursorWrapper):
    """Queues for single statements that write outside a transaction."""

    def __init__(self, connection: Any, *, wrapper: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._wrapper = wrapper

    def execute(self, query: str, params: Any = None) -> Any:
        return self._in_turn(query, partial(super().execute, query, params))

    def executemany(self, query: str, param_list: Any) -> Any:
        return self._in_turn(query, partial(super().executemany, query, param_list))

    def _in_turn(self, query: str, run: Callable[[], Any]) -> Any:
        if self.connection.in_transaction or query.lstrip()[:6].upper() not in _WRITES:
            return run()
        self._wrapper.take_turn()
        try:
            return run()
        finally:
            self._wrapper.end_turn()

"""Django's PostgreSQL backend, whose every wait has an end: `ENGINE = "atp_site.postgresql"`.

A connection has a session of its own, with the settings that the hub needs, or there is none. A
statement without an answer for `registry.storage.patience` closes its connection and raises
`OperationalError`. A connection that was idle for a while is asked for a sign of life before it
gets work: that is when firewalls forget connections.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psycopg
from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from psycopg import IsolationLevel

from atp_site.postgresql.session import begin_session
from registry.storage.patience import patience, waiting_at_most

IDLE_SECONDS = 5.0  # unused for so long, a connection is asked before it gets work
SIGN_OF_LIFE_SECONDS = 2.0

if TYPE_CHECKING:
    # The stubs leave out what a backend is made to override.
    class _PostgresBackend(base.DatabaseWrapper):
        def close_if_health_check_failed(self) -> None: ...
else:
    _PostgresBackend = base.DatabaseWrapper


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that closes itself where the server does not answer in time."""

    answered_at = 0.0  # `time.monotonic()` of the last answer

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for an answer. Raises `OperationalError` where there is none in time."""
        if timeout is not None:  # psycopg's own question, which handles the end of it
            return super().wait(gen, interval, timeout)
        seconds = patience()
        try:
            answer = super().wait(gen, interval, seconds)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()  # no farewell: a rollback would wait for an answer again
            raise psycopg.OperationalError(
                f"PostgreSQL has not answered for {seconds:g} s; the connection was closed"
            ) from None
        self.answered_at = time.monotonic()
        return answer


class PatientSchemaEditor(DatabaseSchemaEditor):
    """Changes tables, which may take as long as it takes."""

    def __enter__(self) -> Any:
        self._unhurried = waiting_at_most(None)
        self._unhurried.__enter__()
        return super().__enter__()

    def __exit__(self, *problem: Any) -> Any:
        try:
            return super().__exit__(*problem)
        finally:
            self._unhurried.__exit__(None, None, None)


class DatabaseWrapper(_PostgresBackend):
    """The connection of one thread."""

    SchemaEditorClass = PatientSchemaEditor

    def get_new_connection(self, conn_params: Any) -> Any:
        self.isolation_level = IsolationLevel.READ_COMMITTED
        connection = BoundedConnection.connect(**conn_params, autocommit=True)
        connection.answered_at = time.monotonic()
        try:
            begin_session(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def close_if_health_check_failed(self) -> None:
        """Close a connection that was idle and does not answer; the next statement makes another.

        Django calls this before each statement and each transaction.
        """
        if self._is_idle() and not self.is_usable():
            self.close()

    def is_usable(self) -> bool:
        with waiting_at_most(SIGN_OF_LIFE_SECONDS):
            return bool(super().is_usable())

    def _is_idle(self) -> bool:
        connection = self.connection
        return (
            connection is not None
            and not self.in_atomic_block
            and not connection.pgconn.pipeline_status  # there the question would not be waited for
            and time.monotonic() - connection.answered_at > IDLE_SECONDS
        )

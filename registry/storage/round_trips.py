"""Several statements in one round trip to PostgreSQL, by its pipeline mode.

A round trip takes longer than most statements of a small batch. SQLite has no round trips: there
each statement runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

__all__ = ["Asked", "one_trip"]


class Asked:
    """A statement that has been sent. Inside `one_trip`, only `rows` waits for its result."""

    def __init__(
        self,
        sql: str,
        parameters: Sequence[Any] | None = None,
        *,
        convert: Callable[[list[Any]], list[Any]] = list,
    ) -> None:
        self._convert = convert
        self._cursor = connections[DEFAULT_DB_ALIAS].cursor()
        self._cursor.execute(sql, parameters)

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows of the result; call it once.

        Raises Django's database errors if the statement, or one sent before it, failed.
        """
        with self._cursor as cursor:
            return self._convert(cursor.fetchall())


@contextmanager
def one_trip(*, when: bool = True) -> Iterator[None]:
    """Send the statements of this block without waiting for each; reading rows waits.

    An error of a statement is raised where rows are read next, or at the end of the block. The
    block can't hold a COPY. A block inside another one is part of the outer one. With `when` false,
    or on SQLite, it does nothing.
    """
    # Looked up once: each attribute of `django.db.connection` takes longer than a look at a dict.
    database = connections[DEFAULT_DB_ALIAS]
    if not when or database.vendor != "postgresql":
        yield
        return
    database.close_if_health_check_failed()
    database.ensure_connection()
    if database.connection.pgconn.pipeline_status:
        yield
        return
    with database.wrap_database_errors, database.connection.pipeline():
        yield

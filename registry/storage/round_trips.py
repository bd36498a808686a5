"""Statements that go to PostgreSQL together: one round trip for several (its pipeline mode).

Between two processes a trip costs more than most statements of a small batch. SQLite has no trips:
there each statement runs when it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection

__all__ = ["Asked", "one_trip"]


class Asked:
    """A statement that was given; in `one_trip` nothing waits for it until its rows are read."""

    def __init__(
        self,
        sql: str,
        parameters: Sequence[Any] | None = None,
        *,
        convert: Callable[[list[Any]], list[Any]] = list,
    ) -> None:
        self._convert = convert
        self._cursor = connection.cursor()
        self._cursor.execute(sql, parameters)

    def rows(self) -> list[tuple[Any, ...]]:
        """What it found; to be read once."""
        with self._cursor as cursor:
            return self._convert(cursor.fetchall())


@contextmanager
def one_trip(*, when: bool = True) -> Iterator[None]:
    """Send what is executed in this block without waiting, except for rows that are read in it.

    A statement's failure is raised where rows are read next, or at the end of the block. Not for
    COPY; within another such block it is part of that one.
    """
    if not when or connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    if connection.connection.pgconn.pipeline_status:
        yield
        return
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield

"""Whose fault a database error is: the engine's, or that of the data it was given."""

from __future__ import annotations

import sqlite3

import psycopg
from django.db import DataError, IntegrityError
from django.db import Error as DatabaseProblem

__all__ = ["is_engine_trouble", "sqlstate"]

# Classes of SQLSTATE, PostgreSQL's appendix A: cardinality, value, constraint, size. Everything
# else is about the server, the session or the schema, whatever class of Python it comes as: a
# failover's read-only sessions are an InternalError, a missing table or grant a ProgrammingError.
DATA_CLASSES = frozenset({"21", "22", "23", "54"})

_DATABASE_ERRORS = (DatabaseProblem, psycopg.Error, sqlite3.Error)
_DATA_ERRORS = (
    DataError, IntegrityError, psycopg.DataError, psycopg.IntegrityError, sqlite3.DataError,
    sqlite3.IntegrityError,
)  # fmt: skip


def is_engine_trouble(problem: BaseException) -> bool:
    """Whether the database failed for a reason that lies in no row that it was given.

    The same work may succeed later, on another connection or another server.
    """
    if not isinstance(problem, _DATABASE_ERRORS):
        return False
    state = sqlstate(problem)
    return state[:2] not in DATA_CLASSES if state else not isinstance(problem, _DATA_ERRORS)


def sqlstate(problem: BaseException) -> str:
    """PostgreSQL's code of an error, empty where there is none; Django keeps the driver's error."""
    for one in (problem, problem.__cause__):
        if isinstance(one, psycopg.Error):
            return one.sqlstate or ""
    return ""

"""Inserts many rows at once, with the same interface on SQLite and PostgreSQL.

It is for code that runs for every batch of envelopes. On PostgreSQL, COPY takes a tenth of the
processor time of a long INSERT, but three round trips instead of one. So few rows go by INSERT and
many by COPY. The caller opens the transaction. See
docs/design/decisions/0006-raw-sql-inserts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.db import connection, models
from psycopg.types.json import Jsonb

FEW_ROWS = 8  # up to here an INSERT is faster than COPY
MOST_VARIABLES = 32_000  # of a statement: 32,766 in SQLite, 65,535 in PostgreSQL's protocol

# COPY in binary form needs the type of each column. A table with another type goes as text.
_BINARY_TYPES = {
    "BigAutoField": "int8",
    "BigIntegerField": "int8",
    "BinaryField": "bytea",
    "BooleanField": "bool",
    "CharField": "text",
    "DateTimeField": "timestamptz",
    "JSONField": "jsonb",
    "IntegerField": "int4",
    "PositiveIntegerField": "int4",
    "PositiveSmallIntegerField": "int2",
    "TextField": "text",
    "UUIDField": "uuid",
}

Row = Sequence[Any]


def is_few(count: int) -> bool:
    """Return whether `insert_rows` uses INSERT for so many rows on every database.

    Only then may it run inside `one_trip`, which can't hold a COPY.
    """
    return count <= FEW_ROWS


@dataclass(frozen=True, slots=True)
class _Target:
    """The prepared SQL texts and value conversions for a table and some of its columns."""

    insert: str  # the text before VALUES
    copy: str
    width: int  # number of columns
    binary_types: tuple[str, ...]  # empty if the type of a column is not known
    converters: tuple[tuple[int, Callable[[Any], Any]], ...]  # by position


def insert_rows(
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    on_conflict_do_nothing: bool = False,
    returning: Sequence[str] | None = None,
) -> list[tuple[Any, ...]]:
    """Insert `rows`; each row holds its values in the order of `columns` (attribute names).

    JSON values are text, and times have a zone. Defaults of the model are not applied. Return for
    each inserted row the attributes named in `returning`, which may include an automatic key.
    """
    if not rows:
        return []
    ending = "ON CONFLICT DO NOTHING" if on_conflict_do_nothing else ""
    is_postgresql = connection.vendor == "postgresql"
    if ending or (is_postgresql and is_few(len(rows))):
        if returning:
            ending += f" RETURNING {_names(model, returning)}"
        return _insert(_target(model, tuple(columns)), rows, ending)
    key = model._meta.pk.attname
    if returning is not None and key not in columns:
        columns, rows = (key, *columns), _numbered(model, rows)
    target = _target(model, tuple(columns))
    if is_postgresql:
        _copy(target, rows)
    else:
        _insert(target, rows)
    places = [tuple(columns).index(name) for name in returning or ()]
    return [tuple(row[i] for i in places) for row in rows] if places else []


@cache
def _target(model: type[models.Model], columns: tuple[str, ...]) -> _Target:
    fields = [model._meta.get_field(name) for name in columns]
    kinds = [_kind(field) for field in fields]
    known = all(kind in _BINARY_TYPES for kind in kinds)
    convert = _converters()
    table = f"{connection.ops.quote_name(model._meta.db_table)} ({_names(model, columns)})"
    return _Target(
        insert=f"INSERT INTO {table}",
        copy=f"COPY {table} FROM STDIN{' WITH (FORMAT BINARY)' if known else ''}",
        width=len(columns),
        binary_types=tuple(_BINARY_TYPES[kind] for kind in kinds) if known else (),
        converters=tuple((i, convert[kind]) for i, kind in enumerate(kinds) if kind in convert),
    )


def _converters() -> dict[str, Callable[[Any], Any]]:
    """Return, by kind of column, the function that converts a value for the driver."""
    if connection.vendor == "postgresql":
        return {"JSONField": lambda text: Jsonb(text, dumps=str)}
    return {
        "DateTimeField": connection.ops.adapt_datetimefield_value,
        "DateField": connection.ops.adapt_datefield_value,
        "UUIDField": lambda value: value.hex,
    }


def _kind(field: Any) -> str:
    while field.is_relation:  # a foreign key may point to another foreign key
        field = field.target_field
    kind: str = field.get_internal_type()
    return kind


def _names(model: type[models.Model], attributes: Sequence[str]) -> str:
    fields: list[Any] = [model._meta.get_field(name) for name in attributes]
    return ", ".join(connection.ops.quote_name(field.column) for field in fields)


def _numbered(model: type[models.Model], rows: Sequence[Row]) -> list[Row]:
    """Return the rows with a key in front, taken from the database's counter of that table.

    COPY returns no keys, so they are taken before.
    """
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)",
                [connection.ops.quote_name(table), model._meta.pk.column, len(rows)],
            )
            keys = [key for (key,) in cursor.fetchall()]
        else:  # SQLite has one writer, so no other connection takes these keys
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            (last,) = cursor.fetchone() or (0,)
            keys = list(range(last + 1, last + 1 + len(rows)))
    return [(key, *row) for key, row in zip(keys, rows, strict=True)]


def _copy(target: _Target, rows: Sequence[Row]) -> None:
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,  # Django does not translate errors of `copy`
        cursor.copy(target.copy) as copy,
    ):
        if target.binary_types:
            copy.set_types(target.binary_types)
        for row in _converted(target, rows):
            copy.write_row(row)


def _insert(target: _Target, rows: Sequence[Row], ending: str = "") -> list[tuple[Any, ...]]:
    """Insert with one statement for many rows, and return the rows of RETURNING.

    `executemany` is twice as fast when its thread is alone. But it releases Python's global lock
    at each row, so beside an event loop and other threads it is several times slower.
    """
    rows = _converted(target, rows)
    one = f"({', '.join(['%s'] * target.width)})"
    most = MOST_VARIABLES // target.width
    returned: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for start in range(0, len(rows), most):
            chunk = rows[start : start + most]
            cursor.execute(
                f"{target.insert} VALUES {', '.join([one] * len(chunk))} {ending}",
                [value for row in chunk for value in row],
            )
            returned += cursor.fetchall() if "RETURNING" in ending else []
    return returned


def _converted(target: _Target, rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows with values converted for the driver.

    A batch has few different times, so each different value is converted once.
    """
    for i, convert in target.converters:
        done = {value: convert(value) for value in {row[i] for row in rows} - {None}}
        if done:
            rows = [(*row[:i], done.get(row[i]), *row[i + 1 :]) for row in rows]
    return rows

"""Many rows at once, the same for the caller on SQLite and PostgreSQL; for the paths that count.

Of this process's time, COPY costs a tenth of a long INSERT on PostgreSQL; of a few rows it is
three trips instead of one. The caller opens the transaction.
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

# What COPY's binary form needs to be told. A table with a column of another type goes as text.
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
    """Whether so many rows go by INSERT on every database, so that `one_trip` may hold them."""
    return count <= FEW_ROWS


@dataclass(frozen=True, slots=True)
class _Target:
    """A table and some of its columns, quoted, and how the database wants their values."""

    insert: str  # up to VALUES
    copy: str
    width: int
    binary_types: tuple[str, ...]  # empty where a column's is not known
    converters: tuple[tuple[int, Callable[[Any], Any]], ...]  # by position


def insert_rows(
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    on_conflict_do_nothing: bool = False,
    returning: Sequence[str] | None = None,
) -> list[tuple[Any, ...]]:
    """Insert `rows`, whose values stand in the order of `columns` (names of attributes).

    Values are what the column holds: JSON as text, dates aware. Defaults of the model are not
    applied. Gives back the attributes named in `returning` of what went in; the key among them
    may be one that the database counts.
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
    """What makes of a value, by the kind of its column, what the driver takes."""
    if connection.vendor == "postgresql":
        return {"JSONField": lambda text: Jsonb(text, dumps=str)}
    return {
        "DateTimeField": connection.ops.adapt_datetimefield_value,
        "DateField": connection.ops.adapt_datefield_value,
        "UUIDField": lambda value: value.hex,
    }


def _kind(field: Any) -> str:
    while field.is_relation:  # a key that points to a key
        field = field.target_field
    kind: str = field.get_internal_type()
    return kind


def _names(model: type[models.Model], attributes: Sequence[str]) -> str:
    fields: list[Any] = [model._meta.get_field(name) for name in attributes]
    return ", ".join(connection.ops.quote_name(field.column) for field in fields)


def _numbered(model: type[models.Model], rows: Sequence[Row]) -> list[Row]:
    """The rows with keys in front, taken from the database's own counter of that table."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)",
                [connection.ops.quote_name(table), model._meta.pk.column, len(rows)],
            )
            keys = [key for (key,) in cursor.fetchall()]
        else:  # no other connection writes until this transaction is over
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table])
            (last,) = cursor.fetchone() or (0,)
            keys = list(range(last + 1, last + 1 + len(rows)))
    return [(key, *row) for key, row in zip(keys, rows, strict=True)]


def _copy(target: _Target, rows: Sequence[Row]) -> None:
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,  # Django sees nothing of what happens inside `copy`
        cursor.copy(target.copy) as copy,
    ):
        if target.binary_types:
            copy.set_types(target.binary_types)
        for row in _converted(target, rows):
            copy.write_row(row)


def _insert(target: _Target, rows: Sequence[Row], ending: str = "") -> list[tuple[Any, ...]]:
    """One statement for many rows: `executemany` lets the interpreter's lock go at each row.

    Alone in a process `executemany` is twice as fast; beside an event loop and other threads that
    wait for the lock it is several times slower.
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
    """The rows as the driver takes them; a batch repeats few dates, so each is converted once."""
    for i, convert in target.converters:
        done = {value: convert(value) for value in {row[i] for row in rows} - {None}}
        if done:
            rows = [(*row[:i], done.get(row[i]), *row[i + 1 :]) for row in rows]
    return rows

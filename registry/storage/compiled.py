"""Querysets whose SQL is compiled once a process.

Django compiles a queryset to SQL each time it is evaluated. For a batch of one envelope that takes
longer than the database. These queries are still written, and type-checked, as querysets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

import orjson
from django.db import connection, models
from psycopg.sql import Literal

from registry.storage.round_trips import Asked

__all__ = ["AnyNumberOf", "AnyOf", "Compiled", "Texts"]


class Texts:
    """A placeholder in a queryset for the texts that are passed when the query runs."""

    def __iter__(self) -> Any:
        raise TypeError("only Compiled can run a queryset with Texts in it")


class Compiled:
    """A `values_list` queryset that is compiled at its first run.

    `build` gets a `Texts` placeholder and uses it with the lookup `__any_of`. `ask` and `rows`
    take the texts that replace it.
    """

    def __init__(self, build: Callable[[Texts], models.QuerySet[Any, Any]]) -> None:
        self._build = build

    def ask(self, texts: Collection[str] = ()) -> Asked:
        """Send the query; `Asked.rows` of the result waits for its rows."""
        sql, parameters, convert = self._sql
        listed = _listed(texts)
        return Asked(
            sql,
            [listed if isinstance(p, Texts) else p for p in parameters],
            convert=convert,
        )

    def rows(self, texts: Collection[str] = ()) -> list[tuple[Any, ...]]:
        """Run the query and return its rows."""
        return self.ask(texts).rows()

    @cached_property
    def _sql(self) -> tuple[str, tuple[Any, ...], Callable[[list[Any]], list[Any]]]:
        query = self._build(Texts()).query
        compiler = query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        if connection.vendor == "postgresql":
            sql, parameters = _written_out(sql, parameters)
        return sql, parameters, _conversion(compiler)


@models.CharField.register_lookup
class AnyOf(models.Lookup[Any]):
    """The lookup `__any_of`: the column equals one of the given texts, each found by an index.

    For `= ANY(...)` on a table without statistics PostgreSQL may scan the whole table. So the SQL
    looks up the key of each text first, and then the rows by their keys: that can't become a scan.
    """

    lookup_name = "any_of"

    def get_prep_lookup(self) -> Any:
        """Return the texts as a list; keep a `Texts` placeholder as it is."""
        return self.rhs if isinstance(self.rhs, Texts) else [str(text) for text in self.rhs]

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL for PostgreSQL; OFFSET 0 keeps the planner from merging the subquery."""
        quote = connection.ops.quote_name
        options = self.lhs.target.model._meta
        table, key, column = map(
            quote, (options.db_table, options.pk.column, self.lhs.target.column)
        )
        return (
            f"{quote(self.lhs.alias)}.{key} = ANY(ARRAY(SELECT hit.{key} FROM"  # noqa: S608
            f" unnest(%s::text[]) AS wanted(text) CROSS JOIN LATERAL"
            f" (SELECT {key} FROM {table} WHERE {column} = wanted.text OFFSET 0) AS hit))",
            (self._parameter(),),
        )

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL for SQLite, where a JSON array holds the texts in one parameter."""
        column, parameters = self.process_lhs(compiler, connection)
        return (
            f"{column} IN (SELECT value FROM json_each(%s))",  # noqa: S608
            (*parameters, self._parameter()),
        )

    def _parameter(self) -> Any:
        return self.rhs if isinstance(self.rhs, Texts) else _listed(self.rhs)


@models.BigIntegerField.register_lookup
class AnyNumberOf(models.Lookup[Any]):
    """The lookup `__any_of` of numbers, however many: they are one parameter."""

    lookup_name = "any_of"
    prepare_rhs = False

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL for PostgreSQL."""
        column, parameters = self.process_lhs(compiler, connection)
        return f"{column} = ANY(%s::bigint[])", (*parameters, list(self.rhs))

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL for SQLite, where a JSON array holds the numbers."""
        column, parameters = self.process_lhs(compiler, connection)
        sql = f"{column} IN (SELECT value FROM json_each(%s))"  # noqa: S608
        return sql, (*parameters, orjson.dumps(list(self.rhs)).decode())


def _conversion(compiler: Any) -> Callable[[list[Any]], list[Any]]:
    """Return the function that makes values of fields from rows as the database returns them.

    It is what `results_iter` of Django's compiler does, with the converters looked up once.
    """
    converters = compiler.get_converters([column for column, *_ in compiler.select])
    if not converters:
        return list
    return lambda found: list(compiler.apply_converters(found, converters))


def _written_out(sql: str, parameters: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """Return the query with its constants written into the text; only `Texts` stay parameters.

    PostgreSQL plans a prepared statement without the parameters' values. If a constant is a
    parameter, it can't use a partial index on it and reads far more rows. See
    docs/design/decisions/0002-no-prepared-statement-with-a-partial-index.md.
    """
    shown = [
        "%s" if isinstance(p, Texts) else Literal(p).as_string().replace("%", "%%")
        for p in parameters
    ]
    left = tuple(p for p in parameters if isinstance(p, Texts))
    return sql.replace("%%", "%%%%") % tuple(shown), left


def _listed(texts: Collection[str]) -> Any:
    """Return the texts as one parameter: a list on PostgreSQL, a JSON array on SQLite."""
    if connection.vendor == "postgresql":
        return list(texts)
    return orjson.dumps(list(texts)).decode()

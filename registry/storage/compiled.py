"""Queries of the paths that count, compiled once.

Django works out the SQL of a queryset each time it is evaluated; for a batch of one that costs
more than the database does. What is here is still written, and checked, as a queryset.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

import orjson
from django.db import connection, models
from psycopg.sql import Literal

from registry.storage.round_trips import Asked

__all__ = ["AnyOf", "Compiled", "Texts"]


class Texts:
    """Stands in a queryset for the texts that are given when it is run."""

    def __iter__(self) -> Any:
        raise TypeError("a queryset with Texts in it is run by Compiled")


class Compiled:
    """A queryset of `values_list`, made by `build` and compiled when it is first run.

    `build` gets a `Texts`, which stands behind `__any_of`; `rows` takes the texts themselves.
    """

    def __init__(self, build: Callable[[Texts], models.QuerySet[Any, Any]]) -> None:
        self._build = build

    def ask(self, texts: Collection[str] = ()) -> Asked:
        """Run the query; its rows are read when they are wanted."""
        sql, parameters, compiler = self._sql
        listed = _listed(texts)
        return Asked(
            sql,
            [listed if isinstance(p, Texts) else p for p in parameters],
            convert=lambda found: list(compiler.results_iter(results=[found])),
        )

    def rows(self, texts: Collection[str] = ()) -> list[tuple[Any, ...]]:
        """What the query finds now."""
        return self.ask(texts).rows()

    @cached_property
    def _sql(self) -> tuple[str, tuple[Any, ...], Any]:
        query = self._build(Texts()).query
        compiler = query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        if connection.vendor == "postgresql":
            sql, parameters = _written_out(sql, parameters)
        return sql, parameters, compiler


@models.CharField.register_lookup
class AnyOf(models.Lookup[Any]):
    """One of the given texts, each looked up by the column's index.

    PostgreSQL would rather read a table of which it has no statistics yet from end to end; asked
    for each text by itself, and only then for the rows, it can't.
    """

    lookup_name = "any_of"

    def get_prep_lookup(self) -> Any:
        return self.rhs if isinstance(self.rhs, Texts) else [str(text) for text in self.rhs]

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
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
        column, parameters = self.process_lhs(compiler, connection)
        return (
            f"{column} IN (SELECT value FROM json_each(%s))",  # noqa: S608
            (*parameters, self._parameter()),
        )

    def _parameter(self) -> Any:
        return self.rhs if isinstance(self.rhs, Texts) else _listed(self.rhs)


def _written_out(sql: str, parameters: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The same query with its constants in the text; what is left are the `Texts`.

    A prepared statement is planned without its parameters. With a constant among them PostgreSQL
    can't know that a partial index holds the rows, and reads those that it does not hold, too.
    """
    shown = [
        "%s" if isinstance(p, Texts) else Literal(p).as_string().replace("%", "%%")
        for p in parameters
    ]
    left = tuple(p for p in parameters if isinstance(p, Texts))
    return sql.replace("%%", "%%%%") % tuple(shown), left


def _listed(texts: Collection[str]) -> Any:
    """The texts as the one parameter that the lookup has."""
    if connection.vendor == "postgresql":
        return list(texts)
    return orjson.dumps(list(texts)).decode()

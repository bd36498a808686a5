"""Database triggers that refuse every change and deletion of trail rows, from any client.

See docs/design/provenance.md#append-only.

One idempotent function makes them after every migration, because SQLite silently drops triggers
when a migration makes a table again (docs/design/architecture.md#facts-that-cost-a-day).
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from registry.trail.models import Entry, EntryBody, Log

APPEND_ONLY = {model._meta.db_table: model._meta.pk.column for model in (Entry, EntryBody, Log)}

# INSERT OR REPLACE deletes a row without firing a delete trigger, so `no_replace` finds it.
_SQLITE = {
    "no_update": "BEFORE UPDATE ON {table}",
    "no_delete": "BEFORE DELETE ON {table}",
    "no_replace": "BEFORE INSERT ON {table}"
    ' WHEN EXISTS (SELECT 1 FROM {table} WHERE "{key}" = NEW."{key}")',
}
_SQLITE_MAKE = """
CREATE TRIGGER IF NOT EXISTS {table}_{name} {when}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END
"""

# For each statement, not for each row: that is cheaper, and TRUNCATE fires no row triggers.
_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION registry_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
_POSTGRES_MAKE = """
CREATE OR REPLACE TRIGGER {table}_append_only
BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION registry_append_only()
"""


def make_triggers(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Make the triggers that are missing in database `using`; runs after every migration."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and _tables(using):
            cursor.execute(_POSTGRES_FUNCTION)
        for table in _tables(using):
            for statement in _statements(connection.vendor, table):
                cursor.execute(statement)


def missing_triggers(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return the names of triggers that are missing in database `using`, or switched off."""
    connection = connections[using]
    query = (
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled IN ('O', 'A')"
        if connection.vendor == "postgresql"
        else "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    )
    with connection.cursor() as cursor:
        cursor.execute(query)
        present = {name for (name,) in cursor.fetchall()}
    return [name for name, _ in protecting_triggers(using) if name not in present]


def protecting_triggers(using: str = DEFAULT_DB_ALIAS) -> list[tuple[str, str]]:
    """Return (name, table) of every trigger that database `using` must have."""
    vendor = connections[using].vendor
    return [(name, table) for table in _tables(using) for name in _names(vendor, table)]


def _tables(using: str) -> list[str]:
    """Return the trail's tables that exist: a backward migration may have removed them."""
    existing = set(connections[using].introspection.table_names())
    return [table for table in APPEND_ONLY if table in existing]


def _names(vendor: str, table: str) -> list[str]:
    if vendor == "postgresql":
        return [f"{table}_append_only"]
    return [f"{table}_{name}" for name in _SQLITE]


def _statements(vendor: str, table: str) -> list[str]:
    if vendor == "postgresql":
        return [_POSTGRES_MAKE.format(table=table)]
    key = APPEND_ONLY[table]
    return [
        _SQLITE_MAKE.format(table=table, name=name, when=when.format(table=table, key=key))
        for name, when in _SQLITE.items()
    ]

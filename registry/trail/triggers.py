"""Triggers that refuse to change or delete what was appended, to every client.

See docs/design/provenance.md#append-only.

They are made by one idempotent function after every migration, because SQLite drops triggers in
silence when a migration remakes a table (docs/design/architecture.md#facts-that-cost-a-day).
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from registry.trail.models import Entry, EntryBody

APPEND_ONLY = {model._meta.db_table: model._meta.pk.column for model in (Entry, EntryBody)}

# An insert that replaces a row deletes it without a delete trigger, so it is looked for itself.
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

# By statement, not by row: cheaper, and TRUNCATE has no rows.
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
    """Make what is missing; connected to `post_migrate`."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and _tables(using):
            cursor.execute(_POSTGRES_FUNCTION)
        for table in _tables(using):
            for statement in _statements(connection.vendor, table):
                cursor.execute(statement)


def missing_triggers(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Names of the triggers that should be there and are not, or are switched off."""
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
    """The name and the table of every trigger that should be there."""
    vendor = connections[using].vendor
    return [(name, table) for table in _tables(using) for name in _names(vendor, table)]


def _tables(using: str) -> list[str]:
    """Those of the tables that exist: a migration may have gone back to before them."""
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

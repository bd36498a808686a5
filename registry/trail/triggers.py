"""Database triggers that refuse every change and deletion of trail rows, from any client.

The one exception is erasing a section: who inserts a row into `registry_erasure` erases the section
that it names, in the same statement, and nobody can erase one otherwise. See
docs/design/provenance.md#append-only.

One idempotent function makes them after every migration, because SQLite silently drops triggers
when a migration makes a table again (docs/design/architecture.md#facts-that-cost-a-day).
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from atp.log import leaves
from registry.trail.kinds import Kind
from registry.trail.losses import BODIES, ERASURES, make_index
from registry.trail.models import Entry, EntryBody, Erasure, Log

APPEND_ONLY = {
    model._meta.db_table: model._meta.pk.column for model in (Entry, EntryBody, Erasure, Log)
}

# A section may become null if an erasure names it; nothing else of a body may change.
_MAY_CHANGE = " AND ".join(
    [
        "NEW.position = OLD.position AND NEW.digests = OLD.digests",
        *(
            f"(NEW.{name} {{same}} OLD.{name} OR (NEW.{name} IS NULL AND EXISTS (SELECT 1 FROM"  # noqa: S608
            f" {ERASURES} AS e WHERE e.position = OLD.position AND e.section = '{name}')))"
            for name in leaves.SECTIONS
        ),
        "(NEW.reason {same} OLD.reason OR (NEW.reason IS NULL AND NEW.shared IS NULL))",
        f"({' OR '.join(f'NEW.{n} IS NULL AND OLD.{n} IS NOT NULL' for n in leaves.SECTIONS)})",
    ]
)
# The entry says that something was erased, and nothing else was entered since. So it is of this
# transaction, or of the one before: the log lock keeps others from appending, and SQLite has one
# writer. PostgreSQL also knows which of the two (`own`).
_ENTERED = (
    "EXISTS (SELECT 1 FROM registry_entry AS n WHERE n.position = NEW.entry"  # noqa: S608
    f" AND n.kind = '{Kind.RETENTION_ERASED}'"
    " AND NOT EXISTS (SELECT 1 FROM registry_entry AS later WHERE later.position > n.position"
    f" AND later.kind <> '{Kind.RETENTION_ERASED}'){{own}})"
)
_ERASE = "\n".join(
    f"UPDATE {BODIES} SET {name} = NULL{', reason = NULL' if name == 'shared' else ''}"  # noqa: S608
    f" WHERE position = NEW.position AND NEW.section = '{name}';"
    for name in leaves.SECTIONS
)

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
_SQLITE_BESIDES = {
    BODIES: {"no_update": f"BEFORE UPDATE ON {BODIES} WHEN NOT ({_MAY_CHANGE.format(same='IS')})"},
    ERASURES: {
        "no_replace": f"BEFORE INSERT ON {ERASURES} WHEN EXISTS (SELECT 1 FROM {ERASURES} AS e"  # noqa: S608
        " WHERE e.position = NEW.position AND e.section = NEW.section)"
    },
}
_SQLITE_ERASURES = {
    "entered": f"""
CREATE TRIGGER IF NOT EXISTS {ERASURES}_entered BEFORE INSERT ON {ERASURES}
WHEN NOT {_ENTERED.format(own="")}
BEGIN SELECT RAISE(ABORT, 'an erasure needs its own entry'); END
""",
    "erases": f"""
CREATE TRIGGER IF NOT EXISTS {ERASURES}_erases AFTER INSERT ON {ERASURES}
BEGIN {_ERASE} END
""",
}

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
BEFORE {events} ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION registry_append_only()
"""
# A transaction sees no row of another one that is in progress. So a row that it sees, and whose
# transaction is in progress, is its own. `xmin` is the low half of that transaction's number.
_POSTGRES_ERASING = f"""
CREATE OR REPLACE FUNCTION registry_is_in_progress(low xid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    newest bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    whole bigint := (newest >> 32 << 32) | low::text::bigint;
BEGIN
    IF whole > newest + 1048576 THEN whole := whole - 4294967296; END IF;
    RETURN whole > 0 AND pg_xact_status(whole::text::xid8) = 'in progress';
END $$;
CREATE OR REPLACE FUNCTION registry_erasing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT {_ENTERED.format(own=" AND registry_is_in_progress(n.xmin)")} THEN
        RAISE EXCEPTION 'an erasure needs its own entry'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION registry_erases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {_ERASE}
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION registry_erased_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {_MAY_CHANGE.format(same="IS NOT DISTINCT FROM")} THEN RETURN NEW; END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE OR REPLACE TRIGGER {BODIES}_erased_only BEFORE UPDATE ON {BODIES}
FOR EACH ROW EXECUTE FUNCTION registry_erased_only();
CREATE OR REPLACE TRIGGER {ERASURES}_entered BEFORE INSERT ON {ERASURES}
FOR EACH ROW EXECUTE FUNCTION registry_erasing();
CREATE OR REPLACE TRIGGER {ERASURES}_erases AFTER INSERT ON {ERASURES}
FOR EACH ROW EXECUTE FUNCTION registry_erases()
"""


def make_triggers(using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Make the triggers that are missing in database `using`; runs after every migration."""
    connection = connections[using]
    with connection.cursor() as cursor:
        for statement in _statements(using):
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
    names = _postgres_names if connections[using].vendor == "postgresql" else _sqlite_names
    return [(f"{table}_{name}", table) for table in _tables(using) for name in names(table)]


def _tables(using: str) -> list[str]:
    """Return the trail's tables that exist: a backward migration may have removed them."""
    existing = set(connections[using].introspection.table_names())
    return [table for table in APPEND_ONLY if table in existing]


def _postgres_names(table: str) -> list[str]:
    more = {BODIES: ["erased_only"], ERASURES: ["entered", "erases"]}
    return ["append_only", *more.get(table, [])]


def _sqlite_names(table: str) -> list[str]:
    return [*_SQLITE, *(_SQLITE_ERASURES if table == ERASURES else ())]


def _statements(using: str) -> list[str]:
    tables, vendor = _tables(using), connections[using].vendor
    indexes = [make_index(vendor)] if BODIES in tables else []
    if vendor == "postgresql":
        functions = [_POSTGRES_FUNCTION] if tables else []
        erasing = [_POSTGRES_ERASING] if {BODIES, ERASURES} <= set(tables) else []
        return [*functions, *map(_postgres_statement, tables), *erasing, *indexes]
    made = [statement for table in tables for statement in _sqlite_statements(table)]
    return [*made, *indexes]


def _postgres_statement(table: str) -> str:
    events = "DELETE OR TRUNCATE" if table == BODIES else "UPDATE OR DELETE OR TRUNCATE"
    return _POSTGRES_MAKE.format(table=table, events=events)


def _sqlite_statements(table: str) -> list[str]:
    whens = {**_SQLITE, **_SQLITE_BESIDES.get(table, {})}
    key = APPEND_ONLY[table]
    made = [
        _SQLITE_MAKE.format(table=table, name=name, when=when.format(table=table, key=key))
        for name, when in whens.items()
    ]
    return [*made, *(_SQLITE_ERASURES.values() if table == ERASURES else ())]

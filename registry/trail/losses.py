"""Finds sections that are missing although no erasure names them, by an index of missing ones."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections

from atp.log import leaves
from registry.trail.models import EntryBody, Erasure

BODIES = EntryBody._meta.db_table
ERASURES = Erasure._meta.db_table
INDEX = "entry_body_missing"
_NAMED = {
    "postgresql": "position('\\x{hex}'::bytea in digests) > 0",
    "sqlite": "instr(digests, x'{hex}') > 0",
}


def make_index(vendor: str) -> str:
    """Return the statement that makes the index of bodies with a missing section."""
    where = _any_missing(vendor)
    return f"CREATE INDEX IF NOT EXISTS {INDEX} ON {BODIES} (position) WHERE {where}"


def losses(*, most: int, using: str = DEFAULT_DB_ALIAS) -> list[tuple[int, str]]:
    """Return at most `most` (position, section) that are missing and were not erased."""
    connection = connections[using]
    arms = [_arm(connection.vendor, name) for name in leaves.SECTIONS]
    with connection.cursor() as cursor:
        cursor.execute(f"{' UNION ALL '.join(arms)} ORDER BY 1 LIMIT {int(most)}")
        return [(position, section) for position, section in cursor.fetchall()]


def _arm(vendor: str, name: str) -> str:
    return (
        f"SELECT b.position, '{name}' FROM {BODIES} AS b"  # noqa: S608
        f" WHERE ({_any_missing(vendor)}) AND {_missing(vendor, name)} AND NOT EXISTS"
        f" (SELECT 1 FROM {ERASURES} AS e WHERE e.position = b.position AND e.section = '{name}')"
    )


def _any_missing(vendor: str) -> str:
    return " OR ".join(_missing(vendor, name) for name in leaves.SECTIONS)


def _missing(vendor: str, name: str) -> str:
    """Return the condition that the digests name a section and its column is null."""
    named = _NAMED[vendor].format(hex=f'"{name}"'.encode().hex())
    return f"({name} IS NULL AND {named})"

"""Remove the protection of the trail, for tests of forged rows."""

from __future__ import annotations

from django.db import connection

from registry.trail.triggers import protecting_triggers


def drop_triggers() -> None:
    """Allow rows of the trail to be changed, until `make_triggers` is called."""
    with connection.cursor() as cursor:
        for name, table in protecting_triggers():
            on = f" ON {table}" if connection.vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on}")

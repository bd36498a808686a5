"""A system check that the trail's triggers exist; it runs with Django's database checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core import checks

from registry.trail.triggers import missing_triggers


@checks.register(checks.Tags.database)
def trail_is_append_only(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Return an error (`atp.E010`) for each trigger that is missing or switched off.

    A database without the trail's tables has no such errors.
    """
    return [
        checks.Error(
            f"The trigger {name} of database '{using}' is missing or switched off, so "
            "entries of the trail can be changed.",
            hint="Find out who removed it. Then make it again: manage.py migrate --skip-checks",
            id="atp.E010",
        )
        for using in databases or ()
        for name in missing_triggers(using)
    ]

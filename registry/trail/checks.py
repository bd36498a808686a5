"""A system check that looks whether the trail is protected; runs with the database checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core import checks

from registry.trail.triggers import missing_triggers


@checks.register(checks.Tags.database)
def trail_is_append_only(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Silent where the tables don't exist yet."""
    return [
        checks.Error(
            f"The trigger {name} of database '{using}' is missing or switched off: "
            "entries of the trail could be changed.",
            hint="Find out who removed it, then remake it: manage.py migrate --skip-checks",
            id="atp.E010",
        )
        for using in databases or ()
        for name in missing_triggers(using)
    ]

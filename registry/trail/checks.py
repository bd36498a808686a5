"""System checks of the trail: its triggers exist, nothing is missing, its retention is readable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from registry.trail.losses import BODIES, losses
from registry.trail.retention import parse_retention
from registry.trail.triggers import missing_triggers

MOST_NAMED = 20  # missing sections in the answer of a check


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


@checks.register(checks.Tags.database)
def nothing_is_missing(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Return an error (`atp.E011`) for each section that is missing without an erasure."""
    return [
        checks.Error(
            f"Section {section} of the entry at position {position} of database '{using}' is"
            " missing, and no erasure names it.",
            hint="Somebody changed the database besides the hub. Compare it with a backup.",
            id="atp.E011",
        )
        for using in databases or ()
        if BODIES in connections[using].introspection.table_names()
        for position, section in losses(most=MOST_NAMED, using=using)
    ]


@checks.register
def retention_can_be_read(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Return an error (`atp.E012`) if the setting `ATP_RETENTION` can't be read."""
    try:
        parse_retention(settings.ATP_RETENTION)
    except ImproperlyConfigured as problem:
        return [checks.Error(str(problem), id="atp.E012")]
    return []

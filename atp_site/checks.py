"""System checks that compare settings: `manage.py check`, and `check --deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks


@checks.register(checks.Tags.compatibility)
def engines_fit(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Return an error or a warning if workers can't share an engine with the nodes."""
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return []
    found: list[checks.CheckMessage] = []
    if "InMemory" in settings.CHANNEL_LAYERS["default"]["BACKEND"]:
        found.append(
            checks.Error(
                "ATP_BROKER_URL is set, but ATP_REDIS_URL is not.",
                hint="Workers send their results to the nodes over Redis: set ATP_REDIS_URL too.",
                id="atp.E001",
            )
        )
    if settings.DATABASES["default"]["ENGINE"] == "atp_site.sqlite":
        found.append(
            checks.Warning(
                "Celery workers share an SQLite file with the hub.",
                hint="SQLite has one writer at a time: set ATP_DATABASE_URL to PostgreSQL.",
                id="atp.W001",
            )
        )
    return found

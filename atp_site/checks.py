"""System checks that compare settings: `manage.py check`, and `check --deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core import checks

from atp_site import engine_tls


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


@checks.register(checks.Tags.security, deploy=True)
def engines_are_verified(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Warn of connections on which another machine could pose as an engine and take its login."""
    found: list[checks.CheckMessage] = []
    if settings.ATP_ENGINE_TLS != "verify":
        found.append(
            checks.Warning(
                "ATP_ENGINE_TLS is unverified: a machine that poses as one gets the password.",
                hint="Give the engines certificates and unset it (docs/production.md).",
                id="atp.W002",
            )
        )
    return found + [
        checks.Warning(
            f"{name} reaches {host} without a verified certificate.",
            hint=f"Use {remedy}, or a host of this machine.",
            id="atp.W003",
        )
        for name, host, remedy in _unprotected()
        if host
    ]


def _unprotected() -> list[tuple[str, str, str]]:
    """Engines on another machine without verified TLS: setting, host ("" if safe), remedy."""
    layer = settings.CHANNEL_LAYERS["default"]["CONFIG"].get("hosts", [])
    return [
        ("ATP_DATABASE_URL", _unverified_postgres(), "sslmode=verify-full"),
        *(
            ("ATP_REDIS_URL", engine_tls.unprotected(host["address"]), "rediss://")
            for host in layer
        ),
        (
            "ATP_BROKER_URL",
            engine_tls.unprotected(settings.CELERY_BROKER_URL),
            "rediss:// or amqps://",
        ),
    ]


def _unverified_postgres() -> str:
    database = settings.DATABASES["default"]
    host = str(database.get("HOST", ""))
    verified = database["OPTIONS"].get("sslmode") == "verify-full"
    return "" if verified or engine_tls.is_local(host) else host

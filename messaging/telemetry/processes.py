"""Writing down signs of life of workers and beat, by the database's clock."""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from messaging.health.models import Process

FORGOTTEN_AFTER = timedelta(days=1)  # since the last sign; it is missed for minutes only


def sign_on(kind: Process.Kind, name: str) -> None:
    """Enter a process that begins its work, in the place of an earlier one of its name."""
    Process.objects.update_or_create(
        kind=kind, name=name, defaults={"started_at": Now(), "seen_at": Now(), "stopped_at": None}
    )


def give_sign(kind: Process.Kind, name: str) -> None:
    """Say that a process still does its work."""
    seen = Process.objects.filter(kind=kind, name=name).update(seen_at=Now(), stopped_at=None)
    if not seen:  # it was away for longer than it was remembered
        sign_on(kind, name)


def sign_off(kind: Process.Kind, name: str) -> None:
    """Say that a process ends because it was asked to: nobody is to miss it."""
    Process.objects.filter(kind=kind, name=name).update(stopped_at=Now())


def forget_processes() -> None:
    """Drop processes that were not seen for long."""
    Process.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()

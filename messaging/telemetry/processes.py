"""Store the signs of life of workers and beat, by the database's clock."""

from __future__ import annotations

from datetime import timedelta

from django.db.models.functions import Now

from messaging.health.models import Process, ProcessKind

FORGOTTEN_AFTER = timedelta(days=1)  # since the last sign of life


def sign_on(kind: ProcessKind, name: str) -> None:
    """Store a process that starts, instead of an earlier one with the same name."""
    Process.objects.update_or_create(
        kind=kind, name=name, defaults={"started_at": Now(), "seen_at": Now(), "stopped_at": None}
    )


def give_sign(kind: ProcessKind, name: str) -> None:
    """Store that a process is alive."""
    seen = Process.objects.filter(kind=kind, name=name).update(seen_at=Now(), stopped_at=None)
    if not seen:  # `forget_processes` deleted it: it was silent for a day
        sign_on(kind, name)


def sign_off(kind: ProcessKind, name: str) -> None:
    """Store that a process stops on request, so that it does not count as silent."""
    Process.objects.filter(kind=kind, name=name).update(stopped_at=Now())


def forget_processes() -> None:
    """Delete processes that gave no sign of life for `FORGOTTEN_AFTER`."""
    Process.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()

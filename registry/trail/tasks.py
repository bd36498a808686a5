"""Celery tasks of the trail."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from registry.trail import actions


@shared_task(name="registry.summarise_refusals", ignore_result=True)
def summarise_refusals() -> None:
    """Enter what was refused in the minutes that are over; two of these at once do no harm."""
    now = datetime.now(UTC)
    while actions.summarise_refusals(now):
        pass

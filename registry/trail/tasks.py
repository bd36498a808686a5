"""The Celery task that enters the sums of refusals and of readings in the admin."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from registry.officers.readings import enter_repeated_readings
from registry.trail import actions


@shared_task(name="registry.summarise_refusals", ignore_result=True)
def summarise_refusals() -> None:
    """Enter the sums of past refusals and readings. Two runs at once do no harm: they lock."""
    now = datetime.now(UTC)
    while actions.summarise_refusals(now):
        pass
    while enter_repeated_readings(now):
        pass

"""The Celery task that enters the sums of refusals."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from registry.trail import actions


@shared_task(name="registry.summarise_refusals", ignore_result=True)
def summarise_refusals() -> None:
    """Enter the sums of refusals of past minutes. Two runs at once do no harm: rows are locked."""
    now = datetime.now(UTC)
    while actions.summarise_refusals(now):
        pass

"""The Celery tasks of the trail: sums of refusals, the hub's own running, erasing by retention."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task
from django.conf import settings

from registry.trail import actions, erasing, watching
from registry.trail.retention import parse_retention


@shared_task(name="registry.summarise_refusals", ignore_result=True)
def summarise_refusals() -> None:
    """Enter the sums of refusals of past minutes. Two runs at once do no harm: rows are locked."""
    now = datetime.now(UTC)
    while actions.summarise_refusals(now):
        pass


@shared_task(name="registry.watch_log", ignore_result=True)
def watch_log() -> None:
    """Note that the hub runs, and enter gaps and the clock. Two runs at once do no harm."""
    watching.watch_log(datetime.now(UTC))


@shared_task(name="registry.erase_expired", ignore_result=True)
def erase_expired() -> None:
    """Erase what the setting `ATP_RETENTION` no longer keeps. Two runs at once do no harm."""
    now = datetime.now(UTC)
    for rule in parse_retention(settings.ATP_RETENTION):
        after: int | None = -1
        while after is not None:
            after = erasing.erase_due(rule, now, after=after)

"""The Celery task that writes exports, and deletes those that have expired."""

from __future__ import annotations

from celery import shared_task
from django.conf import settings

from registry.exports.actions import carry_on, delete_expired, unfinished
from registry.exports.events import CARRY_ON, enqueue_exports_on_commit

SLICE_SECONDS = 5.0  # of one run, so that other tasks have their turn
EMBEDDED_SLICE_SECONDS = 2.0  # of a hub that has no workers: half of it is rest


@shared_task(name=CARRY_ON, ignore_result=True)
def carry_on_exports() -> None:
    """Carry on each unfinished export for a while; a worker's next run follows at once."""
    embedded = settings.CELERY_TASK_ALWAYS_EAGER
    delete_expired()
    waiting = unfinished()
    seconds = (EMBEDDED_SLICE_SECONDS if embedded else SLICE_SECONDS) / max(1, len(waiting))
    ended = [carry_on(name, seconds=seconds, rests=embedded) for name in waiting]
    if not all(ended):
        enqueue_exports_on_commit()

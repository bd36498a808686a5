"""The Celery task that carries on decisions about many rows."""

from __future__ import annotations

from celery import shared_task

from registry.bulk.actions import carry_on, unfinished
from registry.bulk.events import CARRY_ON, enqueue_decisions_on_commit

SLICE_SECONDS = 5.0  # of one run, so that other tasks have their turn


@shared_task(name=CARRY_ON, ignore_result=True)
def carry_on_decisions() -> None:
    """Carry on each unfinished decision for a while; a worker's next run follows at once."""
    waiting = unfinished()
    ended = [carry_on(bulk_id, seconds=SLICE_SECONDS / len(waiting)) for bulk_id in waiting]
    if not all(ended):
        enqueue_decisions_on_commit()

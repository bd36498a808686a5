"""The task dispatch of exports, sent once the transaction has committed."""

from __future__ import annotations

from celery import current_app
from django.conf import settings
from django.db import transaction

CARRY_ON = "registry.carry_on_exports"


def enqueue_exports_on_commit() -> None:
    """Have the waiting exports carried on by a worker, once this transaction commits.

    In the embedded default beat's thread does it, a little at a time. Without a broker the periodic
    run does it.
    """
    if not settings.CELERY_TASK_ALWAYS_EAGER:
        transaction.on_commit(lambda: current_app.tasks[CARRY_ON].delay(), robust=True)

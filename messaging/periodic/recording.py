"""Store the runs of scheduled tasks and the failures of others, by Celery's signals.

Storing a run must never make the run fail. If the database is away or the table is missing, only
the row about the run is lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from celery import states
from celery.signals import task_postrun, task_prerun
from django.conf import settings
from django.db import transaction

from messaging.periodic import actions
from messaging.periodic.failures import in_words
from messaging.periodic.schedule import every_seconds
from registry.storage.patience import waiting_at_most
from registry.storage.threads import mend_connections

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RUN = "atp_run"  # attribute of a task's request: the run's id, and when it began


@task_prerun.connect
def note_start(task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    """Store the start of a scheduled run. Scheduled runs have no arguments; ignore others."""
    if args or kwargs or task.name not in every_seconds():
        return
    run = try_to_store(lambda: actions.record_start(task.name, task.request.hostname or ""))
    setattr(task.request, _RUN, (run, time.monotonic()))


@task_postrun.connect
def note_end(task: Any, state: str | None, retval: Any, **_: Any) -> None:
    """Store the end of a scheduled run; of other tasks, only a failure."""
    run, began = getattr(task.request, _RUN, (None, 0.0))
    failed = state not in {states.SUCCESS, states.IGNORED}
    error = _error(retval, state) if failed else ""
    if run is not None:
        seconds = time.monotonic() - began
        try_to_store(lambda: actions.record_end(task.name, run, seconds=seconds, error=error))
    elif failed:
        note_failure(task.name, retval)


def note_failure(name: str, problem: Any) -> None:
    """Count a failure of the task `name` that the task itself handled."""
    try_to_store(lambda: actions.record_failure(name, _error(problem, states.FAILURE)))


def _error(problem: Any, state: str | None) -> str:
    return in_words(problem) if isinstance(problem, BaseException) else (state or "ended").lower()


def try_to_store(record: Callable[[], T]) -> T | None:
    """Return what `record` returns; if the database is away, `None`, in the time of a task."""
    try:
        with (
            waiting_at_most(settings.ATP_ANSWER_SECONDS),  # the task itself waits for no longer
            transaction.atomic(),  # a savepoint, if the caller of the task has a transaction
        ):
            return record()
    except Exception as problem:  # the task must go on
        logger.warning("a run of a task could not be stored: %s", in_words(problem))
        mend_connections(problem)  # or the task would begin on a broken connection
        return None

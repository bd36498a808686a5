"""Listens to Celery for runs of scheduled tasks and failures of others; the same in every process.

What is written about a run must never make the run fail: a database that is away, or a table that
is not there yet, costs the line about the run and nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from celery import states
from celery.signals import task_postrun, task_prerun
from django.db import transaction

from messaging.periodic import actions
from messaging.periodic.failures import in_words
from messaging.periodic.schedule import every_seconds
from registry.storage.threads import mend_connections

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RUN = "atp_run"  # attribute of a task's request: the run's id, and when it began


@task_prerun.connect
def note_start(task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    """Enter the run, if it is one of the schedule: those have no arguments."""
    if args or kwargs or task.name not in every_seconds():
        return
    run = _try(lambda: actions.record_start(task.name, task.request.hostname or ""))
    setattr(task.request, _RUN, (run, time.monotonic()))


@task_postrun.connect
def note_end(task: Any, state: str | None, retval: Any, **_: Any) -> None:
    """Enter how the run ended; of what is not scheduled only that it failed."""
    run, began = getattr(task.request, _RUN, (None, 0.0))
    failed = state not in {states.SUCCESS, states.IGNORED}
    error = _error(retval, state) if failed else ""
    if run is not None:
        seconds = time.monotonic() - began
        _try(lambda: actions.record_end(task.name, run, seconds=seconds, error=error))
    elif failed:
        note_failure(task.name, retval)


def note_failure(name: str, problem: Any) -> None:
    """Count a failure that the task saw to by itself."""
    _try(lambda: actions.record_failure(name, _error(problem, states.FAILURE)))


def _error(problem: Any, state: str | None) -> str:
    return in_words(problem) if isinstance(problem, BaseException) else (state or "ended").lower()


def _try(record: Callable[[], T]) -> T | None:
    try:
        with transaction.atomic():  # a savepoint, where the caller of the task has a transaction
            return record()
    except Exception as problem:  # whatever it is, the task has its own work to do
        logger.warning("how a task went could not be written down: %s", in_words(problem))
        mend_connections(problem)  # or the task would begin on the one that just broke
        return None

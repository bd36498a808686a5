"""Celery beat: in the serving process of an embedded hub, or in a process of its own.

See docs/design/architecture.md#the-same-code-small-and-large.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import Any

from celery import current_app
from celery.beat import EmbeddedService, PersistentScheduler, Scheduler
from django.db import DatabaseError

from messaging.periodic.actions import give_up_running
from messaging.telemetry.signs import beat_pulse

logger = logging.getLogger(__name__)


class LastingScheduler(PersistentScheduler):
    """The scheduler of a beat process, which stores in a file when it sent each task."""

    def setup_schedule(self) -> None:
        """Open the file so that only its owner can read it, whatever the umask of the process.

        Only a beat process calls this, before it starts threads.
        """
        before = os.umask(0o077)
        try:
            super().setup_schedule()
        finally:
            os.umask(before)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Move the pulse that health looks at, then send the tasks that are due."""
        beat_pulse.move()
        return float(super().tick(*args, **kwargs))


class EmbeddedScheduler(Scheduler):
    """The scheduler of an embedded hub, which continues the schedule of the process before it.

    Otherwise each restart would delay hourly work by up to an hour.
    """

    def setup_schedule(self) -> None:
        """Load the schedule with the last runs that the database knows."""
        super().setup_schedule()
        try:
            began = give_up_running()
        except DatabaseError:
            logger.exception(
                "the last runs of the tasks could not be read; the schedule begins again"
            )
            return
        long_ago = datetime.fromtimestamp(0, UTC)  # for tasks that never ran: due at once
        for name, entry in self.schedule.items():
            if began:
                entry.last_run_at = min(began.get(name, long_ago), entry.default_now())

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Move the pulse that health looks at, then send the tasks that are due."""
        beat_pulse.move()
        return float(super().tick(*args, **kwargs))


class EmbeddedBeat:
    """Beat in a thread of the serving process; its tasks run there, not on the event loop."""

    def __init__(self) -> None:
        self._service = EmbeddedService(
            current_app, thread=True, scheduler_cls=EmbeddedScheduler, max_interval=1
        )

    def start(self) -> None:
        """Start the thread."""
        self._service.start()  # type: ignore[union-attr]  # thread=True makes it a thread

    def stop(self) -> None:
        """Stop the thread, and wait until it has ended, which takes up to a second."""
        self._service.stop()

    def lives(self) -> bool:
        """Return whether the thread runs."""
        return bool(self._service.is_alive())  # type: ignore[union-attr]  # as above

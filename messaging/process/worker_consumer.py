"""The part of a worker that takes tasks from the broker, and connects to it again and again."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

logger = logging.getLogger(__name__)

MOST_PAUSE_SECONDS = 3  # between two attempts, however long the broker is away; Celery waits for 32


class SteadyConsumer(Consumer):
    """A consumer that connects again soon, and whose pauses between attempts stay short."""

    event_dispatcher: Any  # of Celery's events; it has a connection of its own

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Prepare for the next connection; send nothing over the one that broke.

        Otherwise Celery sends an event on it, and waits for an answer that does not come.
        """
        if self.event_dispatcher is not None:
            self.event_dispatcher.enabled = False
        super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect to the broker, however long that takes, and return the connection."""
        connected = conn.ensure_connection(
            _note_failure,
            interval_start=1,
            interval_max=MOST_PAUSE_SECONDS,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return connected


def _note_failure(problem: BaseException, seconds: float) -> None:
    logger.error("the broker can't be reached: %s; trying again in %g s", problem, seconds)

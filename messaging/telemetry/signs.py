"""Signs of life: every few seconds, a worker stores that it reaches its broker, beat that it ticks.

A process that died, hangs or lost its broker gives no more signs. Whether workers also run tasks
shows in the last runs of the scheduled ones (messaging/periodic/).
"""

from __future__ import annotations

import atexit
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.signals import beat_init, heartbeat_sent, worker_ready, worker_shutdown
from django.conf import settings
from django.db import connection

from messaging.health.models import Process, ProcessKind
from messaging.telemetry import processes

logger = logging.getLogger(__name__)

SIGN_SECONDS = 5.0
WORKER_PATIENCE_SECONDS = 10.0  # Celery's own heartbeat comes every 2 s
BEAT_PATIENCE_SECONDS = 20.0  # the most frequent task of the schedule is sent every 5 s


class Signs(threading.Thread):
    """A thread that stores signs of life of its process while `lives()` is true.

    It opens a database connection for each write only: a worker forks, and its child processes
    must not inherit a connection.
    """

    def __init__(self, kind: ProcessKind, name: str, lives: Callable[[], bool]) -> None:
        super().__init__(name="signs-of-life", daemon=True)
        self._who = (kind, name[: Process._meta.get_field("name").max_length or 0])
        self._lives = lives
        self._ended = threading.Event()

    def run(self) -> None:
        """Enter the process, then give a sign of life every `SIGN_SECONDS` until the end."""
        self._write(processes.sign_on)
        while not self._ended.wait(SIGN_SECONDS):
            if self._lives():
                self._write(processes.give_sign)

    def end(self) -> None:
        """Stop the signs, and store that the process stops on request."""
        if not self._ended.is_set():
            self._ended.set()
            self._write(processes.sign_off)

    def _write(self, action: Callable[[ProcessKind, str], None]) -> None:
        try:
            action(*self._who)
        except Exception as problem:  # the missing sign already shows the problem
            logger.warning("a sign of life could not be written down: %s", type(problem).__name__)
        finally:
            connection.close()


class Pulse:
    """The time of the last heartbeat or tick, by the monotonic clock."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def move(self) -> None:
        """Note a heartbeat or tick now."""
        self._at = time.monotonic()

    def moved_within(self, seconds: float) -> bool:
        """Return whether the last heartbeat or tick is less than `seconds` ago."""
        return time.monotonic() - self._at < seconds


worker_pulse, beat_pulse = Pulse(), Pulse()


class WorkerSigns:
    """The signs of life of this process, if it is a worker."""

    def __init__(self) -> None:
        self._signs: Signs | None = None

    def begin(self, consumer: Any) -> None:
        """Start the signs; `consumer` is the Celery consumer of the worker."""
        has_heart = getattr(consumer, "heart", None) is not None  # not with --without-heartbeat
        beats = partial(worker_pulse.moved_within, WORKER_PATIENCE_SECONDS)
        lives = beats if has_heart else lambda: True
        self._signs = Signs(ProcessKind.WORKER, consumer.hostname, lives)
        self._signs.start()

    def end(self) -> None:
        """End the signs; do nothing if they were not started."""
        if self._signs is not None:
            self._signs.end()


_worker_signs = WorkerSigns()


@heartbeat_sent.connect
def note_heartbeat(**_: Any) -> None:
    """Note a heartbeat of the worker, which Celery sends only while it has its broker."""
    worker_pulse.move()


@worker_ready.connect
def begin_worker(sender: Any, **_: Any) -> None:
    """Start the signs of a worker that has its broker; `sender` is Celery's consumer."""
    _worker_signs.begin(sender)


@worker_shutdown.connect
def end_worker(**_: Any) -> None:
    """End the signs of a worker that stops on request."""
    _worker_signs.end()


@beat_init.connect
def begin_beat(**_: Any) -> None:
    """Start the signs of a beat process; the embedded beat is asked directly, and gives none."""
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return
    lives = partial(beat_pulse.moved_within, BEAT_PATIENCE_SECONDS)
    signs = Signs(ProcessKind.BEAT, f"beat@{socket.gethostname()}", lives)
    signs.start()
    atexit.register(signs.end)

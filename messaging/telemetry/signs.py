"""Signs of life: a worker says every few seconds that it hears its broker, beat that it ticks.

What each failure looks like: a process that died, hangs, or lost its broker goes silent here. That
workers also take and end tasks is told by the last runs of the scheduled ones (messaging.periodic).
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

from messaging.health.models import Process
from messaging.telemetry import processes

logger = logging.getLogger(__name__)

SIGN_SECONDS = 5.0
WORKER_PATIENCE_SECONDS = 10.0  # Celery's own heartbeat comes every 2 s
BEAT_PATIENCE_SECONDS = 20.0  # the most frequent task of the schedule is sent every 5 s


class Signs(threading.Thread):
    """Writes a process's signs of life for as long as `lives()`, from a thread of its own.

    The thread has a connection only while it writes: a worker forks, and its children must not
    inherit one.
    """

    def __init__(self, kind: Process.Kind, name: str, lives: Callable[[], bool]) -> None:
        super().__init__(name="signs-of-life", daemon=True)
        self._who = (kind, name[: Process._meta.get_field("name").max_length or 0])
        self._lives = lives
        self._ended = threading.Event()

    def run(self) -> None:
        self._write(processes.sign_on)
        while not self._ended.wait(SIGN_SECONDS):
            if self._lives():
                self._write(processes.give_sign)

    def end(self) -> None:
        """Give no more signs, and say that this is meant."""
        if not self._ended.is_set():
            self._ended.set()
            self._write(processes.sign_off)

    def _write(self, action: Callable[[Process.Kind, str], None]) -> None:
        try:
            action(*self._who)
        except Exception as problem:  # it has gone silent then, which is what others see
            logger.warning("a sign of life could not be written down: %s", type(problem).__name__)
        finally:
            connection.close()


class Pulse:
    """When something was last seen to move."""

    def __init__(self) -> None:
        self._at = time.monotonic()

    def move(self) -> None:
        self._at = time.monotonic()

    def moved_within(self, seconds: float) -> bool:
        return time.monotonic() - self._at < seconds


worker_pulse, beat_pulse = Pulse(), Pulse()


class WorkerSigns:
    """The signs of life of this process, if it is a worker."""

    def __init__(self) -> None:
        self._signs: Signs | None = None

    def begin(self, consumer: Any) -> None:
        """Give signs from now on; `consumer` is the worker's."""
        has_heart = getattr(consumer, "heart", None) is not None  # not with --without-heartbeat
        beats = partial(worker_pulse.moved_within, WORKER_PATIENCE_SECONDS)
        lives = beats if has_heart else lambda: True
        self._signs = Signs(Process.Kind.WORKER, consumer.hostname, lives)
        self._signs.start()

    def end(self) -> None:
        """Give no more signs; do nothing if none were given."""
        if self._signs is not None:
            self._signs.end()


_worker_signs = WorkerSigns()


@heartbeat_sent.connect
def note_heartbeat(**_: Any) -> None:
    """A worker's loop turned while it had its broker."""
    worker_pulse.move()


@worker_ready.connect
def begin_worker(sender: Any, **_: Any) -> None:
    """A worker has its broker and takes tasks; `sender` is its consumer."""
    _worker_signs.begin(sender)


@worker_shutdown.connect
def end_worker(**_: Any) -> None:
    """A worker stops, and means to."""
    _worker_signs.end()


@beat_init.connect
def begin_beat(**_: Any) -> None:
    """A beat process begins; one within the hub is asked directly (messaging.beat)."""
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return
    lives = partial(beat_pulse.moved_within, BEAT_PATIENCE_SECONDS)
    signs = Signs(Process.Kind.BEAT, f"beat@{socket.gethostname()}", lives)
    signs.start()
    atexit.register(signs.end)

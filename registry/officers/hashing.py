"""A queue for the hashing of passwords: a few at a time in one process, unknown clients last.

A password hash is slow on purpose. Without a limit, sign-ins of unknown clients could use all
processors, because the hub hashes a password before it knows whose it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

AT_A_TIME = max(1, (os.cpu_count() or 1) // 2)  # the other processors are for everything else
MOST_STRANGERS = 16  # waiting in a process; about ten seconds of hashing


class HashingPriority(IntEnum):
    """The client whose password is hashed. Lower values come first."""

    SIGNED_IN = 0
    KNOWN_BROWSER = 1
    STRANGER = 2


class HashingBusy(Exception):
    """The queue has as many strangers as it takes; one more would wait too long."""


hashing_priority: ContextVar[HashingPriority] = ContextVar(
    "hashing_priority", default=HashingPriority.SIGNED_IN
)


class HashingQueue:
    """Lets `at_a_time` threads hash; the others wait by priority, then in order of arrival."""

    def __init__(self, at_a_time: int, most_strangers: int) -> None:
        self._free = at_a_time
        self._most_strangers = most_strangers
        self._waiting: list[tuple[HashingPriority, int]] = []
        self._numbers = count()
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, priority: HashingPriority) -> Iterator[None]:
        """Wait for a slot and hold it until the block ends.

        Raises `HashingBusy`, without a wait, for a stranger if `most_strangers` wait already.
        """
        with self._changed:
            self._take_slot(priority)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def waiting(self) -> int:
        """Return how many threads wait now."""
        with self._changed:
            return len(self._waiting)

    def _take_slot(self, priority: HashingPriority) -> None:
        strangers = sum(waiting is HashingPriority.STRANGER for waiting, _ in self._waiting)
        if priority is HashingPriority.STRANGER and strangers >= self._most_strangers:
            raise HashingBusy
        ticket = (priority, next(self._numbers))
        heappush(self._waiting, ticket)
        while not self._free or self._waiting[0] != ticket:
            self._changed.wait()
        heappop(self._waiting)
        self._free -= 1
        self._changed.notify_all()


_queue = HashingQueue(AT_A_TIME, MOST_STRANGERS)


class BoundedPBKDF2PasswordHasher(PBKDF2PasswordHasher):
    """Django's PBKDF2 hasher, behind the queue. Hashes that Django stored before stay valid."""

    def encode(self, *args: Any, **kwargs: Any) -> str:
        """Wait in the queue, then hash; raises `HashingBusy` as `HashingQueue.slot` does."""
        with _queue.slot(hashing_priority.get()):
            return super().encode(*args, **kwargs)

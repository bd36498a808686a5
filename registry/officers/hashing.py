"""Hashing of passwords, a few at a time in one process, and those of strangers last.

A hash is made slow on purpose. Without a bound everybody who types a password takes a share of all
processors, before anybody knows who it is.
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


class Turn(IntEnum):
    """Whose password is hashed; the lower comes first."""

    SIGNED_IN = 0
    KNOWN_BROWSER = 1
    STRANGER = 2


class HashingBusy(Exception):
    """So many strangers wait that one more would wait for long."""


turn: ContextVar[Turn] = ContextVar("whose password is hashed", default=Turn.SIGNED_IN)


class Gate:
    """Lets `at_a_time` callers through; who waits does so in the order of turns."""

    def __init__(self, at_a_time: int, most_strangers: int) -> None:
        self._free = at_a_time
        self._most_strangers = most_strangers
        self._waiting: list[tuple[Turn, int]] = []
        self._numbers = count()
        self._changed = threading.Condition()

    @contextmanager
    def passing(self, whose: Turn) -> Iterator[None]:
        """Wait for one's turn and hold it; raises `HashingBusy` before any wait."""
        with self._changed:
            self._queue(whose)
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()

    def waiting(self) -> int:
        """How many wait now."""
        with self._changed:
            return len(self._waiting)

    def _queue(self, whose: Turn) -> None:
        strangers = sum(waiting is Turn.STRANGER for waiting, _ in self._waiting)
        if whose is Turn.STRANGER and strangers >= self._most_strangers:
            raise HashingBusy
        place = (whose, next(self._numbers))
        heappush(self._waiting, place)
        while not self._free or self._waiting[0] != place:
            self._changed.wait()
        heappop(self._waiting)
        self._free -= 1
        self._changed.notify_all()


_gate = Gate(AT_A_TIME, MOST_STRANGERS)


class BoundedPBKDF2PasswordHasher(PBKDF2PasswordHasher):
    """Django's own, behind the gate; what it stored before verifies as it did."""

    def encode(self, *args: Any, **kwargs: Any) -> str:
        """Wait for the gate, then hash; raises `HashingBusy` for a stranger too many."""
        with _gate.passing(turn.get()):
            return super().encode(*args, **kwargs)

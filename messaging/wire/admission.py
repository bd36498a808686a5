"""Admission: the event loop reads one new connection in each iteration, even if many wait.

A stranger is a connection that has not authenticated. If a thousand strangers send a request at
once, one iteration of the loop would serve them all and take a third of a second. Each message of
an agent passes through several iterations, so agents would wait as long several times. One
stranger in each iteration costs agents little. When the hub is idle, iterations are so short that
strangers do not wait either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from messaging.node.process_node import process_node

REST_SECONDS = 0.006  # the pause after each stranger, while agents wait for something
LONG_QUEUE = 1_000  # strangers; from here on no pause, or they would time out while they wait


class Admission:
    """The queue of one event loop: strangers whose request was not read yet.

    `busy` returns whether agents wait for something. If so, a pause follows each stranger.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._paused_until = 0.0
        self._is_scheduled = False

    def __len__(self) -> int:
        return len(self._waiting)

    def queue(self, stranger: Hashable, enter: Callable[[], None]) -> None:
        """Queue a stranger; call `enter` when it is the first in the queue."""
        self._waiting[stranger] = enter
        if not self._is_scheduled:
            self._schedule()

    def leave(self, stranger: Hashable) -> None:
        """Remove a waiting connection; do nothing if it is not queued."""
        self._waiting.pop(stranger, None)

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_scheduled = True
        if self._paused_until > loop.time():
            loop.call_at(self._paused_until, self._admit_first)
        else:
            loop.call_soon(self._admit_first)

    def _admit_first(self) -> None:
        self._is_scheduled = False
        if not self._waiting:
            return
        enter = self._waiting.pop(next(iter(self._waiting)))
        if self._busy() and len(self._waiting) < LONG_QUEUE:
            self._paused_until = asyncio.get_running_loop().time() + REST_SECONDS
        if self._waiting:
            self._schedule()
        enter()


class Admissions:
    """The admission of each event loop, for as long as the loop exists."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Admission]
        self._by_loop = WeakKeyDictionary()

    def of_running_loop(self) -> Admission:
        """Return the admission of the running event loop; create it at the first call.

        Raises `RuntimeError` if no loop runs.
        """
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = Admission(self._busy)
        return found


admissions = Admissions(busy=process_node.is_busy)

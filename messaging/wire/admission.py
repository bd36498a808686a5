"""Strangers are heard one at each turn of the event loop, however many wait.

A thousand strangers that ask for something at once would all be served in a single turn, a third
of a second long, and agents that are connected would wait for its end at each hop that a message
makes. One stranger a turn costs the agents little at each hop; a hub that has nothing else to do
turns so fast that the strangers lose nothing either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from messaging.node.process_node import process_node

REST_SECONDS = 0.006  # after each stranger, while agents wait for something
LONG_QUEUE = 1_000  # beyond that, no rests: strangers must be heard before they give up


class Admission:
    """The strangers of a loop that have asked for something and were not heard yet.

    While `busy` says that agents wait for something, a rest follows each stranger.
    """

    def __init__(self, busy: Callable[[], bool] = lambda: False) -> None:
        self._busy = busy
        self._outside: dict[Hashable, Callable[[], None]] = {}
        self._rests_until = 0.0
        self._turning = False

    def __len__(self) -> int:
        return len(self._outside)

    def queue(self, stranger: Hashable, enter: Callable[[], None]) -> None:
        """Call `enter` when this stranger's turn has come."""
        self._outside[stranger] = enter
        if not self._turning:
            self._turn()

    def leave(self, stranger: Hashable) -> None:
        """Remove a stranger whose connection has ended; do nothing if it is not queued."""
        self._outside.pop(stranger, None)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._turning = True
        if self._rests_until > loop.time():
            loop.call_at(self._rests_until, self._let_in)
        else:
            loop.call_soon(self._let_in)

    def _let_in(self) -> None:
        self._turning = False
        if not self._outside:
            return
        enter = self._outside.pop(next(iter(self._outside)))
        if self._busy() and len(self._outside) < LONG_QUEUE:
            self._rests_until = asyncio.get_running_loop().time() + REST_SECONDS
        if self._outside:
            self._turn()
        enter()


class Admissions:
    """The admission of each event loop, for as long as the loop exists."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Admission]
        self._by_loop = WeakKeyDictionary()

    def of_running_loop(self) -> Admission:
        """The admission of the loop that runs here; made at the first call."""
        loop = asyncio.get_running_loop()
        found = self._by_loop.get(loop)
        if found is None:
            found = self._by_loop[loop] = Admission(self._busy)
        return found


admissions = Admissions(busy=process_node.is_busy)

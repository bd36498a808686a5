"""Strangers enter one at each turn of the event loop, however many stand outside.

A thousand who connect at once and speak at once would all be served in a single turn, a third of
a second long, and whoever is inside would wait for its end at each hop that its message makes.
One at a turn costs the insiders less than a millisecond a hop; a hub that has nothing else to do
turns so fast that the strangers lose nothing either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

REST_SECONDS = 0.002

_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Turnstile] = WeakKeyDictionary()


class Turnstile:
    """The strangers of a loop that have spoken and were not heard yet.

    While `busy` says that insiders wait for something, each stranger is followed by a rest.
    """

    def __init__(self) -> None:
        self.busy: Callable[[], bool] = lambda: False
        self._outside: deque[Callable[[], None]] = deque()

    def queue(self, enter: Callable[[], None]) -> None:
        """Call `enter` when its turn has come."""
        self._outside.append(enter)
        if len(self._outside) == 1:
            asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        if len(self._outside) > 1:
            if self.busy():
                loop.call_later(REST_SECONDS, self._let_in)
            else:
                loop.call_soon(self._let_in)
        self._outside.popleft()()


def of_running_loop() -> Turnstile:
    """The one turnstile of the loop that serves here."""
    loop = asyncio.get_running_loop()
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = Turnstile()
    return found

"""What is to be done later in a run, such as the end of a fault."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

AGAIN_SECONDS = 0.5


class NotNow(Exception):
    """What was due can't be done yet."""


@dataclass(slots=True)
class Agenda:
    """Actions with their times. One that raises `NotNow` is tried again until it works."""

    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _count: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def is_empty(self) -> bool:
        return not self._later

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this in so many seconds."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._count), action))

    def do_what_is_due(self) -> None:
        """Do what has its time now or had it before."""
        self._do_until(time.monotonic())

    def do_all(self) -> None:
        """Do everything that is left, before its time."""
        self._do_until(float("inf"))

    def _do_until(self, moment: float) -> None:
        due = []
        while self._later and self._later[0][0] <= moment:
            due.append(heapq.heappop(self._later)[2])
        for action in due:
            try:
                action()
            except NotNow:
                self.after(AGAIN_SECONDS, action)

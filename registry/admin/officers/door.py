"""How many sign-ins one network may have under way, whatever names it tries."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

MOST_UNDER_WAY = 4  # of one network, in browsers that the hub does not know


class Door:
    """Counts who is inside; it never waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def entering(self, network: str) -> Iterator[bool]:
        """Whether one more of `network` may enter; it is inside until the block ends."""
        with self._lock:
            admitted = self._inside[network] < self._most
            self._inside[network] += admitted
        try:
            yield admitted
        finally:
            with self._lock:
                self._inside[network] -= admitted
                if not self._inside[network]:
                    del self._inside[network]

"""Limits how many sign-ins of one network are under way at a time, over all account names."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

MOST_UNDER_WAY = 4  # of one network, in browsers that the hub does not know


class SignInLimit:
    """Counts the sign-ins under way of each network; it never waits."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def counting(self, network: str) -> Iterator[bool]:
        """Count a sign-in of `network` until the block ends; yield `False` if it is one too many.

        A sign-in that is one too many is not counted.
        """
        with self._lock:
            admitted = self._under_way[network] < self._most
            self._under_way[network] += admitted
        try:
            yield admitted
        finally:
            with self._lock:
                self._under_way[network] -= admitted
                if not self._under_way[network]:
                    del self._under_way[network]

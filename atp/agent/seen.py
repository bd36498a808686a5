"""The ids of messages that are done, by which repeats are found. No I/O and no clock."""

from __future__ import annotations

import heapq
from typing import Final

from atp.agent.mail import MailKey

__all__ = ["SEEN_LIMIT", "SeenIds"]

SEEN_LIMIT: Final = 65_536  # remembered ids (about 20 MB); those that expire first are dropped


class SeenIds:
    """Ids, each with the code of its refusal or "", until they expire."""

    def __init__(self, limit: int = SEEN_LIMIT) -> None:
        self._limit = limit
        self._codes: dict[MailKey, str] = {}
        self._expiries: list[tuple[float, MailKey]] = []  # a heap

    def add(self, key: MailKey, expires_at: float, code: str = "") -> None:
        """Remember an id until it expires."""
        self._codes[key] = code
        heapq.heappush(self._expiries, (expires_at, key))

    def find(self, key: MailKey) -> str | None:
        """Return the code of a known id, or `None`."""
        return self._codes.get(key)

    def forget_expired(self, now: float) -> None:
        """Forget the ids of what has expired, and what is too much."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._expiries) > self._limit):
            self._codes.pop(heapq.heappop(self._expiries)[1], None)

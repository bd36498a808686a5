"""The messages that an agent has handled: their ids, until they expire, to find repeats."""

from __future__ import annotations

import heapq
from typing import Final

from atp.agent.mail import MailKey

__all__ = ["SEEN_LIMIT", "SeenMessages"]

SEEN_LIMIT: Final = 65_536  # remembered ids (about 20 MB); those that expire first are dropped


class SeenMessages:
    """The ids of handled messages, each with the code if the message was refused, else ""."""

    def __init__(self, *, limit: int = SEEN_LIMIT) -> None:
        self._limit = limit
        self._codes: dict[MailKey, str] = {}
        self._expiries: list[tuple[float, MailKey]] = []  # a heap

    def code(self, key: MailKey) -> str | None:
        """Return the code of a message, or `None` if it is not known."""
        return self._codes.get(key)

    def add(self, key: MailKey, code: str, expires_at: float) -> None:
        """Remember a message until it expires, in seconds since 1970."""
        self._codes[key] = code
        heapq.heappush(self._expiries, (expires_at, key))

    def is_repeat(self, key: MailKey, *, expires_at: float, now: float) -> bool:
        """Return whether an id is known already, and remember it until it expires."""
        known = key in self._codes
        self.add(key, "", expires_at)
        self.forget_expired(now)
        return known

    def forget_expired(self, now: float) -> None:
        """Forget the ids of what has expired, and what is too much."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._expiries) > self._limit):
            self._codes.pop(heapq.heappop(self._expiries)[1], None)

"""The messages that an agent has handled: their ids, to find repeats.

An id is remembered until its message expires, and for as long as it is one of the latest. For a
session keeps what it has taken, also when it expires: if the connection breaks before the hub has
read that a message is done, the hub repeats it on the next connection, however late that is. It is
one of the latest then, because the hub sends only so many messages beyond one that is not done.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final

from atp.agent.mail import MailKey

__all__ = ["SEEN_LIMIT", "SeenMessages"]

SEEN_LIMIT: Final = 65_536  # remembered ids (about 20 MB); those that expire first are dropped
RECENT: Final = 4_096  # twice what the hub sends beyond a message that is not done


class SeenMessages:
    """The ids of handled messages, each with the code if the message was refused, else ""."""

    def __init__(self, *, limit: int = SEEN_LIMIT, recent: int = RECENT) -> None:
        self._limit = limit
        self._most_recent = min(recent, limit // 2)
        self._codes: dict[MailKey, str] = {}
        self._expiries: list[tuple[float, MailKey]] = []  # a heap
        self._recent: OrderedDict[MailKey, bool] = OrderedDict()  # whether it has expired

    def code(self, key: MailKey) -> str | None:
        """Return the code of a message, or `None` if it is not known."""
        return self._codes.get(key)

    def add(self, key: MailKey, code: str, expires_at: float) -> None:
        """Remember a message until it expires, in seconds since 1970, or longer."""
        self._codes[key] = code
        heapq.heappush(self._expiries, (expires_at, key))
        self._recent[key] = False
        self._recent.move_to_end(key)
        if len(self._recent) > self._most_recent:
            earliest, has_expired = self._recent.popitem(last=False)
            if has_expired:
                self._codes.pop(earliest, None)

    def is_repeat(self, key: MailKey, *, expires_at: float, now: float) -> bool:
        """Return whether an id is known already, and remember it until it expires."""
        known = key in self._codes
        self.add(key, "", expires_at)
        self.forget_expired(now)
        return known

    def forget_expired(self, now: float) -> None:
        """Forget the ids of what has expired, unless they are recent, and what is too much."""
        while self._expiries and (self._expiries[0][0] <= now or len(self._expiries) > self._limit):
            key = heapq.heappop(self._expiries)[1]
            if key in self._recent:
                self._recent[key] = True
            else:
                self._codes.pop(key, None)

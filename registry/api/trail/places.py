"""The places of exports: how many this process streams, of all accounts and of each."""

from __future__ import annotations

import threading
from collections import Counter

MOST_EXPORTS = 8  # in one process: each holds a socket and runs queries
MOST_OF_AN_ACCOUNT = 2  # so that one account leaves places for others


class ExportPlace:
    """A place for one export; it is free again when it is left, or when no object refers to it.

    A caller may hang up before the stream of the answer begins, and then nothing of it ever runs.
    """

    def __init__(self, places: ExportPlaces, account: str) -> None:
        self._places: ExportPlaces | None = places
        self._account = account

    def leave(self) -> None:
        """Free the place; do nothing if it is free."""
        places, self._places = self._places, None
        if places is not None:
            places.note_left(self._account)

    __del__ = leave


class ExportPlaces:
    """The exports that this process streams. Views take a place before anything is read."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()  # by account
        self._lock = threading.RLock()  # a place may be collected while its thread holds it

    def take(self, account: str) -> ExportPlace | None:
        """Return a place, or `None` if process or account have as many exports as they may."""
        with self._lock:
            full = self._taken.total() >= MOST_EXPORTS
            if full or self._taken[account] >= MOST_OF_AN_ACCOUNT:
                return None
            self._taken[account] += 1
        return ExportPlace(self, account)

    def note_left(self, account: str) -> None:
        """Count one place less that is taken."""
        with self._lock:
            self._taken[account] -= 1
            self._taken += Counter()  # forgets accounts without a place


places = ExportPlaces()

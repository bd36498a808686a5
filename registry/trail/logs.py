"""The place of an entry: its log and its index there, from its position in the database.

A database nearly always has one log, and a log begins only while no process of the hub runs. So a
process reads the table once.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from django.apps import apps


@dataclass(frozen=True, slots=True)
class Place:
    """The log of an entry, and its number there."""

    log: str
    index: int


class KnownLogs:
    """The logs of the database, as far as this process knows them."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._origins: list[str] = []

    def place(self, position: int) -> Place:
        """Return the place of the entry at this position."""
        if not self._firsts:
            self.read()
        at = bisect_right(self._firsts, position) - 1
        return Place(self._origins[at], position - self._firsts[at])

    def bounds(self, origin: str) -> tuple[int, int | None] | None:
        """Return first position of this log and of the one after it; `None` if there is none."""
        self.read()
        if origin not in self._origins:
            return None
        at = self._origins.index(origin)
        after = self._firsts[at + 1] if at + 1 < len(self._firsts) else None
        return self._firsts[at], after

    def first(self) -> int:
        """Return the position of the first entry of the log that grows."""
        if not self._firsts:
            self.read()
        return self._firsts[-1]

    def newest(self) -> str:
        """Return the origin of the log that grows."""
        if not self._origins:
            self.read()
        return self._origins[-1]

    def read(self) -> None:
        """Read the table; a hub has at least one log (`registry.bootstrap.ensure_hub`)."""
        logs = apps.get_model("registry", "Log")._default_manager.order_by("first_position")
        rows = list(logs.values_list("first_position", "origin"))
        self._firsts, self._origins = [first for first, _ in rows], [name for _, name in rows]


known = KnownLogs()
place_of = known.place


def cause_at(position: int) -> int | None:
    """Return the index of this entry for the member `cause`; `None` if an earlier log has it."""
    index = position - known.first()
    return index if index >= 0 else None


def index_of(position: int) -> int:
    """Return the index, in its log, of the entry at this position."""
    return place_of(position).index

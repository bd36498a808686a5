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
    """The logs of the database, as far as this process knows them.

    First positions and origins are one value, so a thread never sees one without the other.
    """

    def __init__(self) -> None:
        self._logs: tuple[list[int], list[str]] = ([], [])

    def place(self, position: int) -> Place:
        """Return the place of the entry at this position."""
        firsts, origins = self._known()
        at = bisect_right(firsts, position) - 1
        return Place(origins[at], position - firsts[at])

    def first(self) -> int:
        """Return the position of the first entry of the log that grows."""
        return self._known()[0][-1]

    def newest(self) -> str:
        """Return the origin of the log that grows."""
        return self._known()[1][-1]

    def read(self) -> None:
        """Read the table; a hub has at least one log (`registry.bootstrap.ensure_hub`)."""
        logs = apps.get_model("registry", "Log")._default_manager.order_by("first_position")
        rows = list(logs.values_list("first_position", "origin"))
        self._logs = [first for first, _ in rows], [origin for _, origin in rows]

    def _known(self) -> tuple[list[int], list[str]]:
        if not self._logs[0]:
            self.read()
        return self._logs


known = KnownLogs()
place_of = known.place


def cause_at(position: int) -> int | None:
    """Return the index of this entry for the member `cause`; `None` if an earlier log has it."""
    index = position - known.first()
    return index if index >= 0 else None


def index_of(position: int) -> int:
    """Return the index, in its log, of the entry at this position."""
    return place_of(position).index

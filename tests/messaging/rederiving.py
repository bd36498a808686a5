"""Checks that each verdict in the trail follows from what the trail says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from atp.errors import MalformedDocument
from atp.judging.evidence import TrailEvidence
from atp.judging.rebuilding import differences, recompute
from messaging.judging.evidence import said_in
from registry.trail.kinds import Kind
from registry.trail.models import Entry

VERDICTS = {Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_DENIED}


class TrailReader:
    """Reads the trail in order, each entry once, and judges again what was judged."""

    def __init__(self) -> None:
        self._evidence = TrailEvidence()
        self._next = 0

    def skip(self) -> None:
        """Read the entries so far, of which some may be made up by other tests."""
        for entry in self._new():
            with suppress(KeyError, TypeError, MalformedDocument):
                self._evidence.read(entry)

    def problems(self) -> list[str]:
        """Return what is wrong with the verdicts in the entries since the last call."""
        return [problem for entry in self._new() for problem in self._problems_of(entry)]

    def _new(self) -> Iterator[dict[str, Any]]:
        rows = Entry.objects.filter(position__gte=self._next).order_by("position")
        for row in rows.select_related("body").iterator():
            self._next = row.position + 1
            yield said_in(row)

    def _problems_of(self, entry: dict[str, Any]) -> Iterator[str]:
        if entry["kind"] not in VERDICTS:
            self._evidence.read(entry)
            return
        try:
            differ = differences(entry, recompute(entry, self._evidence))
        except MalformedDocument as problem:
            differ = [problem.detail]
        if differ:
            yield f"entry {entry['index']} does not follow: {', '.join(differ)}"

"""The place of an entry: which log it is in, and its index there."""

from __future__ import annotations

import pytest

from registry.trail.logs import KnownLogs, Place
from registry.trail.models import Log

pytestmark = pytest.mark.usefixtures("database")


def test_it_counts_anew_in_each_log() -> None:
    """A restored backup begins a second log in the same database."""
    logs = KnownLogs()
    first = Log.objects.get()
    assert logs.place(7) == Place(first.origin, 7)
    logs._logs = ([0, 100], [first.origin, "log_two"])
    assert logs.place(99) == Place(first.origin, 99)
    assert [logs.place(position) for position in (100, 142)] == [
        Place("log_two", 0),
        Place("log_two", 42),
    ]
    assert (logs.first(), logs.newest()) == (100, "log_two")

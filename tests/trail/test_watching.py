"""The hub says when it did not run, and what its clock is worth; a log begins with its texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from atp.judging.policy import BASELINE
from atp.wire.canonical import digest
from registry.hub.models import Hub
from registry.policies.documents import normalise
from registry.trail.clock import read_clock
from registry.trail.kinds import Kind
from registry.trail.models import Entry, Log
from registry.trail.watching import CLOCK_EVERY, GAP, watch_log

pytestmark = pytest.mark.usefixtures("database")


def entered(kind: Kind, since: int) -> list[Entry]:
    rows = Entry.objects.filter(kind=kind, position__gt=since).select_related("body")
    return list(rows.order_by("position"))


def test_it_enters_a_gap_once_and_the_clock_once_a_day() -> None:
    Hub.objects.update(watched_at=None, clock_entered_at=None)
    since = Entry.objects.latest("position").position
    now = datetime.now(UTC)
    times = [now, now + GAP, now + 3 * GAP, now + 3 * GAP + timedelta(minutes=1), now + CLOCK_EVERY]
    for time in times:
        watch_log(time)
    first, second = entered(Kind.LOG_GAP, since)
    assert first.body.read()["seconds"] == 2 * GAP.total_seconds()
    assert second.body.read()["seconds"] > first.body.read()["seconds"]
    clocks = entered(Kind.HUB_CLOCK, since)
    assert [entry.actor for entry in clocks] == ["hub", "hub"]
    said = clocks[0].body.read()
    assert said["source"] in {"ntp", "pps", "none", "unknown"}
    assert ("offsetMicroseconds" in said) == (said["source"] in {"ntp", "pps"})
    Hub.objects.update(watched_at=None, clock_entered_at=None)


def test_it_enters_no_gap_when_the_clock_was_set_back() -> None:
    now = datetime.now(UTC)
    Hub.objects.update(watched_at=now + timedelta(hours=1), clock_entered_at=now)
    since = Entry.objects.latest("position").position
    watch_log(now)
    assert entered(Kind.LOG_GAP, since) == []
    Hub.objects.update(watched_at=None, clock_entered_at=None)


def test_it_reads_the_clock_of_this_machine() -> None:
    state = read_clock()
    assert (state.offset is None) == (state.source in {"none", "unknown"})


def test_its_log_begins_with_the_texts_in_force() -> None:
    log = Log.objects.get()
    first = Entry.objects.filter(position__gte=log.first_position).order_by("position")
    begin = list(first.select_related("body")[:20])
    assert (begin[0].kind, begin[0].index, begin[0].log) == ("log.started", 0, log.origin)
    stated = [entry.body.read() for entry in begin if entry.kind == Kind.POLICY_STATED]
    texts = [normalise(document) for document in BASELINE]
    assert [one["document"] for one in stated] == texts
    assert [one["digest"] for one in stated] == [digest(text) for text in texts]
    (profile,) = (entry.body.read() for entry in begin if entry.kind == Kind.PROFILE_STATED)
    assert profile["version"] == profile["document"]["version"] == 1

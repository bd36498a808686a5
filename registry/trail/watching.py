"""What the trail says about the hub's own running: gaps in it, and the state of its clock.

Without an entry about a gap, an auditor can't tell an hour without events from an hour without a
hub. Without the clock's state, the time of an entry is only a claim.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from atp.wire.timestamps import format_microseconds
from registry.change import registry_change
from registry.hub.models import Hub
from registry.officers.actor import Actor
from registry.trail.actions import EntryDraft
from registry.trail.clock import ClockState, read_clock
from registry.trail.kinds import Kind

GAP = timedelta(minutes=5)  # between two runs of a task that runs each minute
CLOCK_EVERY = timedelta(days=1)


def watch_log(now: datetime) -> None:
    """Note that the hub runs; enter a gap before it, and once a day the state of the clock.

    A clock that was set back makes no gap.
    """
    with registry_change(Actor.hub(), moves_epoch=False) as change:
        hub = Hub.objects.select_for_update().get()
        if hub.watched_at is not None and now - hub.watched_at > GAP:
            change.enter(_gap(hub.watched_at, now))
        if hub.clock_entered_at is None or now - hub.clock_entered_at >= CLOCK_EVERY:
            change.enter(_clock(hub.hub_id, read_clock()))
            hub.clock_entered_at = now
        hub.watched_at = now
        hub.save(update_fields=["watched_at", "clock_entered_at"])


def _gap(begin: datetime, end: datetime) -> EntryDraft:
    return EntryDraft(
        kind=Kind.LOG_GAP,
        subject=format_microseconds(begin),
        shared={
            "from": format_microseconds(begin),
            "to": format_microseconds(end),
            "seconds": int((end - begin).total_seconds()),
            "reason": "the scheduled tasks of the hub did not run",
        },
    )


def _clock(hub_id: str, state: ClockState) -> EntryDraft:
    said = {"source": state.source}
    measured = {
        "offsetMicroseconds": state.offset,
        "largestErrorMicroseconds": state.largest_error,
    }
    known = {name: value for name, value in measured.items() if value is not None}
    return EntryDraft(kind=Kind.HUB_CLOCK, subject=hub_id, shared={**said, **known})

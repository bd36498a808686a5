"""What people open in the admin is entered, before the page is shown.

The first opening of each page in ten minutes has an entry of its own, up to a limit for each
person. All others are counted and entered together when the ten minutes are over. So a person who
clicks without end can't fill the trail, and nothing is shown that the trail never hears of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import F

from atp.wire.canonical import digest
from atp.wire.timestamps import format_microseconds
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.models import AdminReading
from registry.trail.actions import EntryDraft
from registry.trail.asked import asked_record
from registry.trail.kinds import Kind

WINDOW = timedelta(minutes=10)
MOST_ENTERED = 30  # readings of one person in a window that have an entry of their own
MOST_NAMED = 100  # readings that one entry about the others names
MOST_ASKED = 12  # parameters of a request that an entry names; the lists of the admin have fewer
SUBJECT_MAX_CHARS = 200  # of the column


@dataclass(frozen=True, slots=True)
class PageOpened:
    """What a person opens: a list with what was asked of it, a row, or a message by its sender."""

    kind: Kind
    subject: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    sender: str = ""
    message_id: str = ""

    def said(self) -> dict[str, Any]:
        """Return what tells this from other things of the same subject, as JSON values."""
        asked = asked_record(dict(sorted(self.asked.items())[:MOST_ASKED]))
        said = {"asked": asked, "sender": self.sender, "messageId": self.message_id}
        return {name: value for name, value in said.items() if value}


def enter_reading(user: Any, opened: PageOpened, *, now: datetime | None = None) -> None:
    """Enter or count that `user` opens this; call it before anything of it is shown.

    Raises an error of the database if that is impossible; then show nothing.
    """
    actor = Actor.of_user(user)
    with registry_change(actor, moves_epoch=False) as change:
        if _is_first(actor, opened, now or datetime.now(UTC)):
            change.enter(_draft(opened))


def opened_lately(user: Any, kind: Kind) -> set[str]:
    """Return the subjects of this kind that `user` has opened in this window of time."""
    window = window_of(datetime.now(UTC))
    rows = AdminReading.objects.filter(actor=Actor.of_user(user).name, window=window, kind=kind)
    return set(rows.values_list("subject", flat=True))


def enter_repeated_readings(now: datetime) -> int:
    """Enter the readings of past windows that have no entry yet, and forget them all.

    Return how many there were; call it again until it returns 0.
    """
    with registry_change(Actor.hub(), moves_epoch=False) as change:
        due = AdminReading.objects.select_for_update(skip_locked=True)
        due = due.filter(window__lte=now - WINDOW).order_by("actor", "window", "kind", "pk")
        rows = list(due[:MOST_NAMED])
        AdminReading.objects.filter(pk__in=[row.pk for row in rows]).delete()
        for (actor, window, kind), group in groupby(rows, key=_group):
            change.enter(*_summary(actor, window, Kind(kind), list(group)))
    return len(rows)


def window_of(now: datetime) -> datetime:
    """Return the start of the window of time that `now` is in."""
    return now - (now - datetime.min.replace(tzinfo=UTC)) % WINDOW


def _is_first(actor: Actor, opened: PageOpened, now: datetime) -> bool:
    """Count the reading; return whether it gets an entry of its own."""
    of_person = AdminReading.objects.filter(actor=actor.name, window=window_of(now))
    said = opened.said()
    row, is_new = AdminReading.objects.get_or_create(
        actor=actor.name,
        window=window_of(now),
        kind=opened.kind,
        digest=digest([opened.subject, said]),
        defaults={
            "subject": opened.subject[:SUBJECT_MAX_CHARS],
            "said": said,
            "is_entered": of_person.filter(is_entered=True).count() < MOST_ENTERED,
        },
    )
    if not is_new:
        AdminReading.objects.filter(pk=row.pk).update(count=F("count") + 1)
    return is_new and row.is_entered


def _draft(opened: PageOpened) -> EntryDraft:
    said = {name: value for name, value in opened.said().items() if name == "asked"}
    return EntryDraft(
        opened.kind,
        subject=opened.subject[:SUBJECT_MAX_CHARS],
        sender=opened.sender,
        message_id=opened.message_id,
        shared={"where": "admin", **said},
    )


def _group(row: AdminReading) -> tuple[str, datetime, str]:
    return row.actor, row.window, row.kind


def _summary(
    actor: str, window: datetime, kind: Kind, rows: Sequence[AdminReading]
) -> Sequence[EntryDraft]:
    """Return an entry about all readings that have none of their own; none if there are none."""
    again = [
        {"subject": row.subject, "count": count, **row.said}
        for row in rows
        if (count := row.count - row.is_entered)
    ]
    if not again:
        return []
    said = {"where": "admin", "since": format_microseconds(window), "again": again}
    return [EntryDraft(kind, actor=actor, subject="several", shared=said)]

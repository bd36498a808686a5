"""Erasing sections of entries: by retention, in chunks, and never what a legal hold covers.

An erasure is an entry too. Its row in `registry_erasure` makes a trigger set the section to null
(`registry/trail/triggers.py`), so no section can go without an entry that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import orjson
from django.db.models import Q

from atp.errors import MalformedDocument
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.storage.bulk import insert_rows
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind
from registry.trail.logs import place_of
from registry.trail.models import Entry, Erasure, LegalHold
from registry.trail.retention import RetentionRule

MOST_ERASED = 128  # sections in a transaction, because the log lock is held meanwhile
MOST_READ = 2_000  # entries that one call looks at

_COLUMNS = ("position", "section", "entry", "reason")


@dataclass(frozen=True, slots=True)
class Section:
    """A section to erase, and the organisations that its entry concerned."""

    position: int
    name: str
    organisations: tuple[str, ...]


def erase_due(rule: RetentionRule, now: datetime, *, after: int = -1) -> int | None:
    """Erase sections that `rule` no longer keeps, in one transaction.

    It looks at entries behind the position `after`, oldest first. Return the position to go on
    behind; `None` if there is nothing more to look at.
    """
    rows = _due(rule, now, after)
    sections = [section for row in rows for section in _sections(row, rule)]
    cut = sections[:MOST_ERASED]
    if cut:
        erase(cut, reason=rule.reason, actor=Actor.hub())
    if len(cut) < len(sections):
        return cut[-1].position - 1  # the next call begins with this entry
    return rows[-1].position if len(rows) == MOST_READ else None


def erase(sections: Sequence[Section], *, reason: str, actor: Actor) -> None:
    """Erase these sections, at most `MOST_ERASED`, with one entry for each set of organisations."""
    if len(sections) > MOST_ERASED:
        raise ValueError(f"{len(sections)} sections; at most {MOST_ERASED} are erased at once")
    ordered = sorted(sections, key=lambda one: (one.organisations, one.position, one.name))
    with registry_change(actor, moves_epoch=False) as change:
        for organisations, group in groupby(ordered, key=lambda one: one.organisations):
            some = list(group)
            change.enter_noted(_entry(some, organisations, reason), _erasing(some, reason))


def place_hold(*, agent: str, organisation: str, reason: str, actor: Actor) -> LegalHold:
    """Keep all entries about an agent, of an organisation (uid), or all if both are empty."""
    reason = check_reason(reason)
    with registry_change(actor, moves_epoch=False) as change:
        row = LegalHold.objects.create(agent=agent, organisation=organisation, reason=reason)
        change.enter(_hold_entry(Kind.RETENTION_HELD, row, reason))
    return row


def lift_hold(hold_id: int, *, reason: str, actor: Actor) -> LegalHold:
    """Lift a hold. Raises `MalformedDocument` if there is none, or if it is lifted already."""
    reason = check_reason(reason)
    with registry_change(actor, moves_epoch=False) as change:
        row = LegalHold.objects.select_for_update().filter(pk=hold_id, lifted_at=None).first()
        if row is None:
            raise MalformedDocument(f"there is no legal hold {hold_id} that is in force")
        row.lifted_at = datetime.now(UTC)
        row.save(update_fields=["lifted_at"])
        change.enter(_hold_entry(Kind.RETENTION_RELEASED, row, reason))
    return row


def held() -> Q:
    """Return the condition on entries that a legal hold covers."""
    covered = Q(pk__in=())
    for agent, organisation in LegalHold.objects.filter(lifted_at=None).values_list(
        "agent", "organisation"
    ):
        covered |= _covered(agent, organisation)
    return covered


def _covered(agent: str, organisation: str) -> Q:
    if not agent and not organisation:
        return Q(position__gte=0)
    found = Q(pk__in=())
    if agent:
        found |= Q(sender=agent) | Q(recipient=agent) | Q(subject=agent) | Q(actor=f"agent:{agent}")
    if organisation:
        found |= Q(organisations__contains=organisation)
    return found


def _due(rule: RetentionRule, now: datetime, after: int) -> list[Entry]:
    present = Q()
    for name in rule.sections:
        present |= Q(**{f"body__{name}__isnull": False})
    old = Q(position__gt=after, time__lt=now - rule.period)
    rows = Entry.objects.filter(rule.covers, present, old)
    kept = rows.exclude(held()).select_related("body")
    return list(kept.order_by("position")[:MOST_READ])


def _sections(row: Entry, rule: RetentionRule) -> Iterator[Section]:
    present = orjson.loads(bytes(row.body.digests))
    for name in rule.sections:
        if name in present and getattr(row.body, name) is not None:
            yield Section(row.position, name, tuple(row.organisations))


def _entry(sections: Sequence[Section], organisations: tuple[str, ...], reason: str) -> EntryDraft:
    places = [(place_of(one.position), one.name) for one in sections]
    return EntryDraft(
        kind=Kind.RETENTION_ERASED,
        subject=reason,
        organisations=organisations,
        shared={
            "erased": [[place.log, place.index, name] for place, name in places],
            "reason": reason,
        },
    )


def _erasing(sections: Sequence[Section], reason: str) -> Callable[[int], object]:
    """Return the function that erases, once the position of the entry about it is known."""
    return lambda entry: insert_rows(
        Erasure, _COLUMNS, [(one.position, one.name, entry, reason) for one in sections]
    )


def _hold_entry(kind: Kind, row: LegalHold, reason: str) -> EntryDraft:
    return EntryDraft(
        kind=kind,
        subject=row.agent or row.organisation or "everything",
        organisations=(row.organisation,) if row.organisation else (),
        shared={"hold": row.pk, "reason": reason},
    )

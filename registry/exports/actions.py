"""Every write of exports to files: made, carried on step by step, ended, deleted.

A step reads some pages, writes them, and then stores how far it got, if nobody else has meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import QueryDict

from registry.change import registry_change
from registry.exports import files
from registry.exports.events import enqueue_exports_on_commit
from registry.exports.models import TrailExport
from registry.officers.actor import Actor
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from registry.trail.reading.exporting import PAGE_ENTRIES
from registry.trail.reading.filters import asked_record, parse_query
from registry.trail.reading.formats import FORMATS
from registry.trail.reading.search import Query, Span, find, read, span_of

KEPT = timedelta(days=1)  # a file, from its end on
MOST_UNFINISHED = 2  # of one account
MOST_KEPT = 5  # of one account, unfinished ones included
PAGES_IN_A_STEP = 10
PERMISSION = "registry.view_entry"

logger = logging.getLogger(__name__)


class TooManyExports(Exception):
    """The account has as many exports as it may; the message says what to do."""


def create_export(written_as: str, asked: QueryDict, *, actor: Actor) -> TrailExport:
    """Store that an export is to be written, enter it in the trail, and return it.

    Raises `TooManyExports`; `UnreadableQuery` if the filters can't be read; `ValueError` if the
    actor has no account.
    """
    if actor.user_id is None:
        raise ValueError("only a person with an account exports the trail")
    query = _query(written_as, asked)
    name = secrets.token_hex(16)
    body = {"asked": asked_record({"format": [written_as], **query.asked})}
    with registry_change(actor, moves_epoch=False) as change:
        _check_number(actor.user_id)
        size = Entry.objects.size()
        span = span_of(query.limits, log_size=size)
        export = TrailExport.objects.create(
            name=name, made_by_id=actor.user_id, written_as=written_as, asked=asked.urlencode(),
            log_size=size, first=span.first, end=span.end, left_first=span.first, left_end=span.end,
        )  # fmt: skip
        change.enter(EntryDraft(Kind.EXPORT_CREATED, subject=f"export {name}", shared=body))
        enqueue_exports_on_commit()
    return export


def _check_number(user_id: int) -> None:
    """Raise `TooManyExports` if the account can't have another one; lock the account."""
    get_user_model()._default_manager.select_for_update().get(pk=user_id)
    own = TrailExport.objects.filter(made_by_id=user_id)
    if own.filter(ended_at=None).count() >= MOST_UNFINISHED or own.count() >= MOST_KEPT:
        raise TooManyExports("Your account has too many exports. Wait, or delete one.")


def carry_on(name: str, *, seconds: float, rests: bool = False) -> bool:
    """Write an export for about so many seconds; return whether it has ended.

    With `rests` each step is followed by a rest of the same length.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        export = TrailExport.objects.select_related("made_by").filter(pk=name).first()
        if export is None or export.ended_at is not None:
            return True
        _step_or_fail(export)
        if rests:
            time.sleep(time.monotonic() - began)
    return False


def cancel(export: TrailExport) -> None:
    """End an export if it has not ended, and delete its file and its row."""
    _end(export, TrailExport.Outcome.CANCELLED)
    _forget(export)


def unfinished() -> list[str]:
    """Return the exports that have not ended, the oldest first."""
    waiting = TrailExport.objects.filter(ended_at=None).order_by("made_at")
    return list(waiting.values_list("pk", flat=True))


def delete_expired() -> None:
    """Delete the exports whose time is over, with their files."""
    for export in TrailExport.objects.filter(ended_at__lt=datetime.now(UTC) - KEPT):
        _forget(export)


def _query(written_as: str, asked: QueryDict) -> Query:
    return parse_query(asked, fields=FORMATS[written_as].fields, order="oldest")


def _step_or_fail(export: TrailExport) -> None:
    if not export.made_by.has_perm(PERMISSION):
        _end(export, TrailExport.Outcome.FAILED, "the account may not read the trail any more")
        return
    try:
        _step(export)
    except OSError as exc:
        logger.exception("an export could not be written")
        _end(export, TrailExport.Outcome.FAILED, f"it could not be written: {exc.strerror or exc}")


def _step(export: TrailExport) -> None:
    """Write some pages and store how far the export got; end it if nothing is left."""
    written_as, query = (
        FORMATS[export.written_as],
        _query(export.written_as, QueryDict(export.asked)),
    )
    left: Span | None = Span(export.left_first, export.left_end)
    chunks = [] if export.size else [written_as.begin(query.fields)]
    rows = 0
    for _ in range(PAGES_IN_A_STEP):
        assert left is not None
        found = find(query, left, limit=PAGE_ENTRIES)
        page = read(query.fields, found.positions)
        chunks.append(written_as.write(query.fields, page))
        rows += len(page)
        left = None if found.reached is None else left.behind(found.reached, query.order)
        if left is None:
            break
    size = files.write_at(export.name, export.size, chunks)
    done = left or Span(export.left_end, export.left_end)
    if _store(export, left=done, rows=export.rows + rows, size=size) and left is None:
        _end(export, TrailExport.Outcome.COMPLETE)


def _store(export: TrailExport, *, left: Span, rows: int, size: int) -> bool:
    """Store how far an export got; return whether nobody else has carried it on or ended it."""
    with registry_change(Actor.of_user(export.made_by), moves_epoch=False):
        moved = _unmoved(export).update(
            left_first=left.first, left_end=left.end, rows=rows, size=size
        )
    export.left_first, export.left_end, export.rows, export.size = left.first, left.end, rows, size
    return bool(moved)


def _unmoved(export: TrailExport) -> QuerySet[TrailExport]:
    """Return the row of an export, if it is as it was read."""
    return TrailExport.objects.filter(
        pk=export.pk,
        ended_at=None,
        left_first=export.left_first,
        left_end=export.left_end,
        size=export.size,
    )


def _end(export: TrailExport, outcome: str, reason: str = "") -> None:
    """Store and enter the end of an export, unless it has ended."""
    with registry_change(Actor.of_user(export.made_by), moves_epoch=False) as change:
        row = TrailExport.objects.select_for_update().filter(pk=export.pk, ended_at=None).first()
        if row is None:
            return
        TrailExport.objects.filter(pk=row.pk).update(
            outcome=outcome, reason=reason[:200], ended_at=datetime.now(UTC)
        )
        body: dict[str, Any] = {"rows": row.rows, "outcome": outcome}
        body |= {"reason": reason} if reason else {}
        change.enter(EntryDraft(Kind.EXPORT_ENDED, subject=f"export {row.pk}", shared=body))


def _forget(export: TrailExport) -> None:
    files.delete(export.name)
    with registry_change(Actor.of_user(export.made_by), moves_epoch=False):
        TrailExport.objects.filter(pk=export.pk).delete()

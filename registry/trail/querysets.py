"""Reads of the trail."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.db import models
from django.db.models import Q

from registry.storage.compiled import Compiled, Texts
from registry.trail.logs import cause_at, index_of

if TYPE_CHECKING:
    from registry.trail.models import Entry

Row = TypeVar("Row", bound=models.Model)


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """A queryset that only reads. `registry.trail.actions` appends the rows."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self.model.__name__} rows are append-only: they can't be changed")

    create = get_or_create = update_or_create = bulk_create = _refuse
    update = bulk_update = delete = _refuse
    acreate = aget_or_create = aupdate_or_create = abulk_create = _refuse
    aupdate = abulk_update = adelete = _refuse


class EntryQuerySet(AppendOnlyQuerySet["Entry"]):
    """Filters for entries."""

    def before(self, position: int) -> EntryQuerySet:
        """Return the first `position` entries: the trail as it was when it had that many."""
        return self.filter(position__lt=position)

    def about_the_same_as(self, entry: Entry) -> EntryQuerySet:
        """Return the entries with the same message id or request id, oldest first.

        `entry` itself is included.
        """
        related = Q(position=entry.position)
        if entry.message_id:
            related |= Q(message_id=entry.message_id)
        if entry.request_id:
            related |= Q(request_id=entry.request_id)
        return self.filter(related).order_by("position")


def _verdicts(message_ids: Texts) -> models.QuerySet[Any, Any]:
    from registry.trail.models import Entry

    verdicts = ("envelope.accepted", "envelope.denied")
    return Entry.objects.filter(message_id__any_of=message_ids, kind__in=verdicts).values_list(
        "sender", "message_id", "position"
    )


_VERDICTS = Compiled(_verdicts)


def entries_of_messages(message_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """Return by (sender, messageId) the trail index of each message's verdict; one query."""
    return {(s, m): index_of(position) for s, m, position in _VERDICTS.rows(message_ids)}


def causes_among(message_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """Return by (sender, messageId) the index of the verdict that a later entry names as its cause.

    An entry can name only those of its own log, so those of earlier logs are left out.
    """
    found = _VERDICTS.rows(message_ids)
    return {(s, m): place for s, m, position in found if (place := cause_at(position)) is not None}

"""Reads of the trail, named as adjectives."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.db import models
from django.db.models import Q

from registry.storage.compiled import Compiled, Texts

if TYPE_CHECKING:
    from registry.trail.models import Entry

Row = TypeVar("Row", bound=models.Model)


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """Reads only; rows come from `registry.trail.actions`."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self.model.__name__} rows are appended only, and never changed")

    create = get_or_create = update_or_create = bulk_create = _refuse
    update = bulk_update = delete = _refuse
    acreate = aget_or_create = aupdate_or_create = abulk_create = _refuse
    aupdate = abulk_update = adelete = _refuse


class EntryQuerySet(AppendOnlyQuerySet["Entry"]):
    def before(self, index: int) -> EntryQuerySet:
        """The log as it stood when it had `index` entries."""
        return self.filter(index__lt=index)

    def about_the_same_as(self, entry: Entry) -> EntryQuerySet:
        """Entries that share `entry`'s message or request, itself included, as they happened."""
        related = Q(index=entry.index)
        if entry.message_id:
            related |= Q(message_id=entry.message_id)
        if entry.request_id:
            related |= Q(request_id=entry.request_id)
        return self.filter(related).order_by("index")


def _verdicts(message_ids: Texts) -> models.QuerySet[Any, Any]:
    from registry.trail.models import Entry

    verdicts = ("envelope.accepted", "envelope.denied")
    return Entry.objects.filter(message_id__any_of=message_ids, kind__in=verdicts).values_list(
        "sender", "message_id", "index"
    )


_VERDICTS = Compiled(_verdicts)


def entries_of_messages(message_ids: Collection[str]) -> dict[tuple[str, str], int]:
    """The entry of each verdict on these messages, by (sender, messageId); one query."""
    return {(s, m): index for s, m, index in _VERDICTS.rows(message_ids)}

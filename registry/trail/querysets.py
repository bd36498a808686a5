"""Reads of the trail."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from django.db import models
from django.db.models import Q

from registry.storage.compiled import Compiled, Texts
from registry.trail.logs import cause_at, index_of

if TYPE_CHECKING:
    from registry.trail.models import Entry

Row = TypeVar("Row", bound=models.Model)


@models.CharField.register_lookup
class Named(models.Lookup[Any]):
    """The lookup `__named`: the text is not empty, as the conditions of partial indexes have it.

    Without a parameter SQLite sees that the condition of the index holds.
    """

    lookup_name = "named"
    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL."""
        lhs, parameters = self.process_lhs(compiler, connection)
        return f"{lhs} > ''", tuple(parameters)


class AppendOnlyQuerySet(models.QuerySet[Row]):
    """A queryset that only reads. `registry.trail.actions` appends the rows."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"{self.model.__name__} rows are append-only: they can't be changed")

    create = get_or_create = update_or_create = bulk_create = _refuse
    update = bulk_update = delete = _refuse
    acreate = aget_or_create = aupdate_or_create = abulk_create = _refuse
    aupdate = abulk_update = adelete = _refuse


class PlacedQuerySet(AppendOnlyQuerySet[Row]):
    """Rows that have the position of an entry as their primary key."""

    def within(self, first: int, end: int) -> Self:
        """Return the rows from position `first` to before `end`."""
        return self.filter(pk__gte=first, pk__lt=end)

    def at(self, positions: Sequence[int]) -> Self:
        """Return the rows at these positions, in no order. They must be in order, each once."""
        low, high = sorted((positions[0], positions[-1]))
        if high - low == len(positions) - 1:
            return self.filter(pk__gte=low, pk__lte=high)
        return self.filter(pk__in=positions)

    def positions(self, *, newest: bool = False, most: int | None = None) -> list[int]:
        """Return at most `most` positions, the oldest or the newest first."""
        rows = self.order_by("-pk" if newest else "pk").values_list("pk", flat=True)
        return list(rows[:most])

    def rows(self, *columns: str) -> dict[int, tuple[Any, ...]]:
        """Return by position the values of these columns."""
        return {row[0]: row[1:] for row in self.order_by().values_list("pk", *columns)}


class EntryQuerySet(PlacedQuerySet["Entry"]):
    """Filters for entries."""

    def first_since(self, moment: datetime, *, default: int) -> int:
        """Return the position of the first entry at `moment` or later; `default` if none is."""
        later = self.filter(time__gte=moment).order_by("time", "pk")
        return next(iter(later.values_list("pk", flat=True)[:1]), default)

    def size(self) -> int:
        """Return the number of entries in the log."""
        last = self.order_by("-pk").values_list("pk", flat=True)[:1]
        return next(iter(last), -1) + 1

    def hubs(self) -> list[tuple[int, str]]:
        """Return position and hub of each entry, the oldest first."""
        return list(self.order_by("pk").values_list("pk", "hub"))

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

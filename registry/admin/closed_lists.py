"""Lists in the admin that are filtered by what they offer, and by nothing else.

Django takes any lookup of a model's own columns from an address, regular expressions and parts of
dates among them, and fails with 500 where the database can't compute one.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError, models
from django.http import HttpRequest

Row = TypeVar("Row", bound=models.Model)

# How the filters of a list write their own lookups into its addresses.
ENDINGS = ("", "__exact", "__isnull", "__isempty", "__id__exact", "__in")


class BoundedChangeList(ChangeList):
    """Django's own, which leads back to the whole list where the database refuses a value."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page; raises `IncorrectLookupParameters` for a value out of range."""
        try:
            super().get_results(request)
        except (DataError, OverflowError, ValueError) as exc:
            raise IncorrectLookupParameters(exc) from exc


class ClosedList(admin.ModelAdmin[Row]):
    """A list that takes the lookups of its own filters; any other is refused with 400."""

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Return whether a filter of this list writes the lookup."""
        return lookup in self._lookups()

    def _lookups(self) -> set[str]:
        """What the filters of the list write into its addresses."""
        filters: Any = self.list_filter
        own = {each.parameter_name for each in filters if hasattr(each, "parameter_name")}
        fields = [each[0] if isinstance(each, tuple) else each for each in filters]
        names = [field for field in fields if isinstance(field, str)]
        return own | {name + ending for name in names for ending in ENDINGS}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class that reads a page of the list."""
        return BoundedChangeList

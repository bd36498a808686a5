"""Lists in the admin that are filtered by what they offer, and by nothing else.

Django takes any lookup of a model's own columns from an address, regular expressions and parts of
dates among them, and fails with 500 where the database can't compute one.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest
from django.db import DataError, models
from django.db.models import QuerySet
from django.http import HttpRequest

SEARCH_MAX_CHARS = 200
Row = TypeVar("Row", bound=models.Model)

# How the filters of a list write their own lookups into its addresses.
ENDINGS = ("", "__exact", "__isnull", "__isempty", "__id__exact", "__in")


class BoundedChangeList(ChangeList):
    """Django's own, which leads back to the whole list where the database refuses a value."""

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
        except (DataError, OverflowError, ValueError) as exc:
            raise IncorrectLookupParameters(exc) from exc


class ClosedList(admin.ModelAdmin[Row]):
    """A list that takes the lookups of its own filters; any other is refused with 400."""

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in self._lookups()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Row], search_term: str
    ) -> tuple[QuerySet[Row], bool]:
        """Search as Django does; a text that is too long is refused with 400.

        Each word is looked for in each column: thousands cost the database much, and SQLite fails.
        """
        if len(search_term) > SEARCH_MAX_CHARS:
            raise BadRequest(f"a search has at most {SEARCH_MAX_CHARS} characters")
        return super().get_search_results(request, queryset, search_term)

    def _lookups(self) -> set[str]:
        """What the filters of the list write into its addresses."""
        filters: Any = self.list_filter
        own = {each.parameter_name for each in filters if hasattr(each, "parameter_name")}
        fields = [each[0] if isinstance(each, tuple) else each for each in filters]
        names = [field for field in fields if isinstance(field, str)]
        return own | {name + ending for name in names for ending in ENDINGS}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

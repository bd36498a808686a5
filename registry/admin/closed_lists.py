"""Lists of the admin that accept only the lookups of their own filters.

By default Django accepts from a URL any lookup of a model's own columns, such as regular
expressions and parts of dates, and answers 500 if the database can't evaluate it.
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

# The endings of the lookups that filters write into the URLs of their list.
ENDINGS = ("", "__exact", "__isnull", "__isempty", "__id__exact", "__in")


class BoundedChangeList(ChangeList):
    """Redirects to the unfiltered list if the database refuses a value of a filter."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page; raises `IncorrectLookupParameters` for a value out of range."""
        try:
            super().get_results(request)
        except (DataError, OverflowError, ValueError) as exc:
            raise IncorrectLookupParameters(exc) from exc


class ClosedList(admin.ModelAdmin[Row]):
    """A list that answers 400 to a lookup that is not one of its own filters."""

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Return whether a filter of this list writes the lookup."""
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
        """Return the lookups that the list's filters write into its URLs."""
        filters: Any = self.list_filter
        own = {each.parameter_name for each in filters if hasattr(each, "parameter_name")}
        fields = [each[0] if isinstance(each, tuple) else each for each in filters]
        names = [field for field in fields if isinstance(field, str)]
        return own | {name + ending for name in names for ending in ENDINGS}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class that reads a page of the list."""
        return BoundedChangeList

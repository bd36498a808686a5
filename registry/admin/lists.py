"""Parts of officers' lists: badges and filters."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString


def badge(kind: str, words: str = "") -> SafeString:
    """A word in the colours of its kind; the kind itself where no other words are given."""
    return format_html('<span class="badge badge-{}">{}</span>', kind, words or kind)


class DealtWithFilter(admin.SimpleListFilter):
    """Rows that wait, whose `column` is empty, or those that are dealt with."""

    title = parameter_name = "state"
    column: str
    waiting: tuple[str, str]  # the value in the URL, and the words
    dealt_with: tuple[str, str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [self.waiting, self.dealt_with]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that the chosen value selects."""
        if self.value() is None:
            return queryset
        return queryset.filter(**{f"{self.column}__isnull": self.value() == self.waiting[0]})


class ValuesFilter(admin.AllValuesFieldListFilter):
    """The values of a text column. The empty one is called "none": it has no text to click."""

    heading = ""  # the name of the column unless a subclass gives one

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.title = self.heading or self.title

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            text = str(choice["display"])  # " (3)" where the empty value is counted
            yield {**choice, "display": text if text.strip() == text != "" else f"none{text}"}

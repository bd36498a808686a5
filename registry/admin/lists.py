"""Parts of officers' lists: badges, filters, and pages whose cost does not grow with the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString

MOST_COUNTED = 10_000  # rows of a list; filters and searches reach the others
NONE = "none"  # the word for the empty value, which has no text to click


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


class WordsFilter(admin.SimpleListFilter):
    """Rows by the column `parameter_name`, which has a closed list of words.

    The empty one is called "none". Django's own filter would read the whole table to find the
    words in use.
    """

    words: Sequence[str]
    may_be_empty = False

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        none = [(NONE, NONE)] if self.may_be_empty else []
        return [*none, *self.choices_of(request)]

    def choices_of(self, request: HttpRequest) -> list[tuple[str, str]]:
        """Return the choices besides "none"."""
        return [(word, word) for word in self.words]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that the chosen value selects; none if it is no word of the list."""
        value = self.value()
        if value is None:
            return queryset
        return queryset.filter(**{f"{self.parameter_name}__in": self.meant(value)})

    def meant(self, value: str) -> list[str]:
        """Return the words that a value of the URL stands for."""
        if self.may_be_empty and value == NONE:
            return [""]
        return [word for word in self.words if word == value]


class DottedWordsFilter(WordsFilter):
    """Rows by a column of words such as `flow.busy`.

    It lists what stands before the dots, and the words of the one that is chosen.
    """

    def choices_of(self, request: HttpRequest) -> list[tuple[str, str]]:
        chosen = (request.GET.get(str(self.parameter_name)) or "").partition(".")[0]
        found: list[tuple[str, str]] = []
        for family in dict.fromkeys(word.partition(".")[0] for word in self.words):
            within = [word for word in self.words if word.startswith(f"{family}.")]
            found.append((f"{family}.*" if within else family, family))
            if family == chosen:
                found += [(word, f"\u2013 {word}") for word in within]
        return found

    def meant(self, value: str) -> list[str]:
        family, _, rest = value.partition(".")
        if rest == "*":
            return [word for word in self.words if word.startswith(f"{family}.")]
        return super().meant(value)


class BoundedPaginator(Paginator[Any]):
    """A paginator that counts at most `MOST_COUNTED` rows: counting ten million takes seconds."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:MOST_COUNTED].count())

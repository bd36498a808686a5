"""Decisions about many rows: the page that asks, and the page that shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html

from registry.admin.pages import OfficerAdmin, Question, ReadOnlyAdmin
from registry.bulk.actions import begin, carry_on, choose
from registry.bulk.decisions import DECISIONS
from registry.bulk.models import BulkDecision
from registry.impact import counted
from registry.officers.actor import Actor

Row = TypeVar("Row", bound=models.Model)

AT_ONCE = 200  # rows that are decided before the page answers; more are a background task
NAMED = 20  # rows named on the page that asks, and refusals shown as messages
ENDLESS = float("inf")


class BulkAdmin(OfficerAdmin[Row]):
    """An admin page on whose list an officer can decide about all selected rows."""

    def for_many(
        self, request: HttpRequest, rows: QuerySet[Any], view: str, decision: str
    ) -> HttpResponse:
        """Go to the page that decides about the selected rows; there is no limit to them."""
        ids = rows.order_by("pk").values_list("pk", flat=True)
        bulk = choose(decision, ids, actor=Actor.of_user(request.user))
        return HttpResponseRedirect(f"{self.url(view)}?selection={bulk.pk}")

    def decide_many(
        self,
        request: HttpRequest,
        decision: str,
        form: forms.Form,
        question: Question,
        facts: Callable[[Sequence[Any]], Sequence[tuple[str, str]]],
    ) -> HttpResponse:
        """Show the question about the chosen rows; on a valid POST decide about each of them.

        `facts` returns what the page says of the rows with these primary keys. Raises `Http404`
        if none are chosen, and `PermissionDenied` if the user may not change such rows.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        ids = self._chosen(request, decision)
        noun = DECISIONS[decision].noun
        asked = replace(question, facts=(("Chosen", _named(ids, noun)), *facts(ids)), in_parts=True)

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse | str:
            bulk_id = request.GET.get("selection") or choose(decision, ids, actor=actor).pk
            begin(int(bulk_id), values, actor=actor)
            if len(ids) > AT_ONCE:
                return HttpResponseRedirect(_page_of(bulk_id))
            carry_on(int(bulk_id), seconds=ENDLESS)
            return _tell(request, BulkDecision.objects.get(pk=bulk_id), noun)

        return self.decide(request, form, asked, run)

    def _chosen(self, request: HttpRequest, decision: str) -> list[Any]:
        """Return the primary keys that the officer's own selection, or the URL itself, names."""
        if number := request.GET.get("selection", ""):
            if not _is_row_id(number):
                raise Http404
            mine = BulkDecision.objects.filter(pk=number, decision=decision)
            bulk = mine.filter(made_by=request.user.pk).first()
            if bulk is None:
                raise Http404
            return [pk for pk, _ in bulk.subjects]
        column = self.model._meta.pk
        assert column is not None
        texts = request.GET.getlist("id")
        wanted = [pk for pk in texts if isinstance(column, models.CharField) or _is_row_id(pk)]
        found = self.get_queryset(request).filter(pk__in=wanted).values_list("pk", flat=True)
        if not found:
            raise Http404
        return sorted(found)


class DecisionFilter(admin.SimpleListFilter):
    """Filters by what was decided."""

    title = parameter_name = "decision"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [(name, kind.words) for name, kind in DECISIONS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that the chosen value selects."""
        value = self.value()
        return queryset if value is None else queryset.filter(decision=value)


@admin.register(BulkDecision)
class BulkDecisionAdmin(ReadOnlyAdmin[BulkDecision]):
    """The list of decisions about many, and the page of each: progress, and what was not done."""

    when_empty = "There are none yet. Select rows of a list and choose an action."
    list_display = ("words", "made_by", "begun_at", "progress", "not_done")
    list_filter = (DecisionFilter,)
    list_select_related = ("made_by",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[BulkDecision]:
        rows: QuerySet[BulkDecision] = super().get_queryset(request)
        return rows.filter(begun_at__isnull=False).defer("subjects")

    @admin.display(description="decision", ordering="decision")
    def words(self, row: BulkDecision) -> str:
        """Return what was decided."""
        return DECISIONS[row.decision].words

    @admin.display(description="progress")
    def progress(self, row: BulkDecision) -> str:
        """Return how many rows were reached, and whether it has ended."""
        return f"{row.position} of {row.total}{'' if row.ended_at else ', under way'}"

    @admin.display(description="not done")
    def not_done(self, row: BulkDecision) -> int:
        """Return how many rows were refused."""
        return len(row.refusals)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_row(request, object_id)
        return self.render(
            request,
            "bulkdecision/page.html",
            title=f"{DECISIONS[row.decision].words}: {row.position} of {row.total}",
            row=row,
            noun=DECISIONS[row.decision].noun,
            percent=100 * row.position // row.total if row.total else 100,
            reason=row.values.get("reason", ""),
        )


def _is_row_id(text: str) -> bool:
    """Return whether the text is a number that a row id can be: a larger one fails in SQLite."""
    return text.isdecimal() and len(text) < len(str(2**63))


def _named(ids: Sequence[Any], noun: str) -> str:
    """Return how many rows are chosen, and the names of the first ones."""
    more = len(ids) - NAMED
    names = ", ".join(map(str, ids[:NAMED]))
    return f"{counted(len(ids), noun)}: {names}{f' and {more} more' if more > 0 else ''}"


def _tell(request: HttpRequest, bulk: BulkDecision, noun: str) -> str:
    """Show the refusals as messages; return a sentence about what was done."""
    for pk, why in bulk.refusals[:NAMED]:
        messages.error(request, f"{noun.capitalize()} {pk}: {why}")
    if len(bulk.refusals) > NAMED:
        text = 'Not done for {}: <a href="{}">all of them, and why</a>'
        messages.error(request, format_html(text, len(bulk.refusals), _page_of(bulk.pk)))
    return f"Done for {bulk.done} of {counted(bulk.total, noun)}."


def _page_of(bulk_id: Any) -> str:
    return reverse("admin:registry_bulkdecision_change", args=[bulk_id])

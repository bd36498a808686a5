"""Base classes of the officers' pages, on which each decision runs one action.

Django's add and change views run in a transaction, which would hold the log lock for the whole
request. So decisions have views of their own: a page with a question and a form, and a POST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from atp.errors import ATPError
from registry.admin import made_from
from registry.admin.closed_lists import ClosedList
from registry.admin.fields import add_refusal
from registry.admin.lists import MOST_COUNTED, BoundedPaginator
from registry.change import ChangedMeanwhile, registry_change
from registry.officers.actor import Actor

Row = TypeVar("Row", bound=models.Model)
Decide = Callable[[Mapping[str, Any], Actor], HttpResponse | str | None]

BY_ENTER = "by_enter"  # the hidden first button of a form, which Enter in a field presses


@dataclass(frozen=True, slots=True)
class Question:
    """The texts of a decision page.

    `facts` are (label, value) above the form. `alarm` is a warning at the top, in red. `danger`
    marks a decision that takes trust away: Enter in a field does not submit it. `back` is the URL
    to go to afterwards, and `done` the message there. `about` are the rows that the decision
    depends on: if one has changed since the form was shown, the form is refused. `in_parts` marks
    a decision that is more than one transaction.
    """

    title: str
    text: str
    button: str
    back: str
    facts: Sequence[tuple[str, Any]] = ()
    danger: bool = False
    done: str = "Done."
    alarm: str = ""
    about: Sequence[models.Model] = ()
    in_parts: bool = False


class OfficerAdmin(ClosedList[Row]):
    """An admin page that shows rows, and changes them only by decisions. It deletes nothing."""

    actions: Any = None
    when_empty = ""  # the text of an empty list: how rows get there
    show_full_result_count = False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: no row of the registry is deleted."""
        return False

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Refuse a POST to Django's own form: it would bypass the actions and the trail."""
        if request.method not in {"GET", "HEAD"}:
            raise PermissionDenied
        answer: HttpResponse = super().changeform_view(request, *args, **kwargs)
        return answer

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show `add_page` instead of Django's form."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self.add_page(request)

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the page that adds a row. Raises `Http404` unless a subclass has one."""
        raise Http404

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        """Show `row_page` instead of Django's form."""
        return self.row_page(request, object_id)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the page of a row; by default Django's own, which is read-only."""
        return super().change_view(request, object_id)

    def decision_url(self, route: str, view: Callable[..., HttpResponse]) -> URLPattern:
        """Return a URL below the list (`attest/`) or below a row (`<str:object_id>/suspend/`).

        The last part of `route` names it, as `url` expects.
        """
        name = route.rstrip("/").rpartition("/")[2]
        return path(
            route,
            self.admin_site.admin_view(view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
        )

    def url(self, name: str, *args: Any) -> str:
        """Return the URL of one of this model's pages, such as `change` or `suspend`."""
        view = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(view, args=[quote(arg) for arg in args])

    def get_row(self, request: HttpRequest, object_id: str, *, to_change: bool = False) -> Row:
        """Return the row that the user wants to see or, with `to_change`, change.

        Raises `Http404` if there is no such row and `PermissionDenied` if the user may not.
        """
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        allowed = self.has_change_permission if to_change else self.has_view_permission
        if not allowed(request, row):
            raise PermissionDenied
        return row

    def render(
        self, request: HttpRequest, template: str, *, title: str, **context: Any
    ) -> HttpResponse:
        """Render a template of the admin with the admin's own context."""
        return TemplateResponse(
            request,
            f"admin/registry/{template}",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": title,
                "list_url": self.url("changelist"),
                **context,
            },
        )

    def decide(
        self,
        request: HttpRequest,
        form: forms.Form,
        question: Question,
        run: Decide,
        *,
        template: str = "decision.html",
        **context: Any,
    ) -> HttpResponse:
        """Show the question; on a valid POST call `run` and go back.

        A form works once, and only while the rows that it is about stay as they were: `run` is
        called in one transaction with both checks, or after it if the question is `in_parts`.
        If `run` returns a response, that is sent instead; a text is shown as what was done. An
        `ATPError` of the action is shown above the form. For a question with `danger`, Enter in
        a field shows the page once more.
        """
        if question.danger and BY_ENTER in request.POST:
            form.add_error(None, f"Press “{question.button}” to do it. Enter does not do it.")
        elif request.method == "POST" and form.is_valid():
            try:
                answer = _run_once(request, question, run, form.cleaned_data)
            except ATPError as refusal:
                add_refusal(form, refusal)
            except made_from.FieldsChanged as changes:
                made_from.add_changes(form, changes)
            except ChangedMeanwhile as refusal:
                form.add_error(None, str(refusal))
            else:
                if isinstance(answer, HttpResponse):
                    return answer
                messages.success(request, answer or question.done)
                return HttpResponseRedirect(question.back)
        sealed = made_from.sealed(request, question.about)
        context = {"question": question, "form": form, "made_from": sealed, **context}
        return self.render(request, template, title=question.title, **context)


class ReadOnlyAdmin(OfficerAdmin[Row]):
    """An admin page that shows rows and changes none."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: the admin adds no row."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: the admin changes no row."""
        return False


class GrowingList(ReadOnlyAdmin[Row]):
    """A list of rows that come with traffic: its pages cost the same with a million of them."""

    paginator = BoundedPaginator
    show_facets = admin.ShowFacets.NEVER  # they count the whole table

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, and say where it ends before its last row."""
        return super().changelist_view(request, {"most": MOST_COUNTED, **(extra_context or {})})


def acting(action: Callable[..., Any], *subject: Any) -> Decide:
    """Return a function that runs `action` on `subject` with the form's values as keywords."""

    def run(values: Mapping[str, Any], actor: Actor) -> None:
        action(*subject, **values, actor=actor)

    return run


def _run_once(
    request: HttpRequest, question: Question, run: Decide, values: Mapping[str, Any]
) -> HttpResponse | str | None:
    """Run a decision if its form is new and the rows it is about are as it shows them."""
    actor = Actor.of_user(request.user)
    origin = made_from.opened(request)
    with registry_change(actor):
        origin.use_up()
        origin.check(question.about)
        if not question.in_parts:
            return run(values, actor)
    return run(values, actor)


def posted(request: HttpRequest) -> Any:
    """Return the data of a POST, or `None` to make a form that was not sent yet."""
    return request.POST if request.method == "POST" else None

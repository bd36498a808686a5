"""What the officers' pages have in common: views of our own, whose decisions are actions.

Django's add and change views run in a transaction, which would hold the log's lock for the whole
request; so pages that decide are plain views, with a question, a reason and a POST.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from atp.errors import ATPError
from registry.admin.lists import ClosedList
from registry.officers.actor import Actor

Row = TypeVar("Row", bound=models.Model)
Decide = Callable[[Mapping[str, Any], Actor], Any]

BY_ENTER = "by_enter"  # the unseen first button of a form, which Enter in a field presses


@dataclass(frozen=True, slots=True)
class Question:
    """What a decision page asks.

    `facts` are (label, value) shown above the form; `alarm` stands in red above everything.
    """

    title: str
    text: str
    button: str
    back: str
    facts: Sequence[tuple[str, Any]] = ()
    danger: bool = False
    done: str = "Done."
    alarm: str = ""


class OfficerAdmin(ClosedList[Row]):
    """Shows rows; what changes them are decisions. Nothing that has a history is deleted."""

    actions: Any = None
    when_empty = ""  # what an empty list says: how something comes into it
    show_full_result_count = False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Django's own form shows a row, at most; it would save past every rule and the trail."""
        if request.method not in {"GET", "HEAD"}:
            raise PermissionDenied
        answer: HttpResponse = super().changeform_view(request, *args, **kwargs)
        return answer

    def decision_url(self, route: str, view: Callable[..., HttpResponse]) -> URLPattern:
        """A URL below the list (`attest/`) or below a row (`<str:object_id>/suspend/`)."""
        name = route.rstrip("/").rpartition("/")[2]
        return path(
            route,
            self.admin_site.admin_view(view),
            name=f"{self.opts.app_label}_{self.opts.model_name}_{name}",
        )

    def url(self, name: str, *args: Any) -> str:
        """The URL of one of this model's pages."""
        view = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{name}"
        return reverse(view, args=[quote(arg) for arg in args])

    def get_row(self, request: HttpRequest, object_id: str, *, to_change: bool = False) -> Row:
        """The row, if this person may see it, or change it; 404 or 403 otherwise."""
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
        self, request: HttpRequest, form: forms.Form, question: Question, run: Decide
    ) -> HttpResponse:
        """Ask, and on a valid POST run the action; what it refuses is shown beside the form.

        Harm is done by the button only: the Enter key in a field asks once more.
        """
        if question.danger and BY_ENTER in request.POST:
            form.add_error(None, f"Press “{question.button}” to do it; Enter alone does not.")
        elif request.method == "POST" and form.is_valid():
            try:
                answer = run(form.cleaned_data, Actor.of_user(request.user))
            except ATPError as refusal:
                form.add_error(None, refusal.detail or refusal.code)
            else:
                if isinstance(answer, HttpResponse):
                    return answer
                messages.success(request, question.done)
                return HttpResponseRedirect(question.back)
        return self.render(
            request, "decision.html", title=question.title, question=question, form=form
        )


class ReadOnlyAdmin(OfficerAdmin[Row]):
    """Shows rows and changes none."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def posted(request: HttpRequest) -> Any:
    """The data for a form: of a POST, or `None` for a form that was not sent yet."""
    return request.POST if request.method == "POST" else None

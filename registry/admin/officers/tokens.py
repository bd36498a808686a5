"""API tokens in the admin: issued once, shown once, revoked at any time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.admin.lists import badge
from registry.admin.pages import OfficerAdmin, Question, acting, posted
from registry.officers.actions import LONGEST_DAYS, issue_api_token, revoke_api_token
from registry.officers.actor import Actor
from registry.officers.models import ApiToken


class ApiTokenForm(forms.Form):
    """The form that issues an API token."""

    name = forms.CharField(max_length=80, help_text="What it is for, such as the SIEM feed.")
    days = forms.IntegerField(
        min_value=1, max_value=LONGEST_DAYS, initial=90, label="Valid for how many days"
    )


@admin.register(ApiToken)
class ApiTokenAdmin(OfficerAdmin[ApiToken]):
    """The officer's own tokens; superusers see and revoke those of all people."""

    list_display = ("name", "user", "state", "created_at", "expires_at")
    list_display_links = None
    list_select_related = ("user",)

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        return [self.decision_url("<str:object_id>/revoke/", self.revoke_view), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        """Return the officer's own tokens; for a superuser, all tokens."""
        rows: QuerySet[ApiToken] = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(user=request.user.pk)

    @admin.display(description="state")
    def state(self, row: ApiToken) -> SafeString:
        """Return whether the token is valid, expired or revoked."""
        if row.revoked_at:
            return badge("revoked")
        if row.expires_at <= datetime.now(UTC):
            return badge("expired")
        link = self.url("revoke", row.pk)
        return format_html('{} <a href="{}">revoke</a>', badge("valid", "good"), link)

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that issues a token; show the token once."""
        form = ApiTokenForm(posted(request))
        question = Question(
            title="Issue an API token",
            text="The token has your rights, and acts in your name. It is shown once. A program"
            " sends it as: Authorization: Token ...",
            button="Issue",
            back=self.url("changelist"),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            issued = issue_api_token(request.user, values["name"], days=values["days"])
            return self.render(
                request, "apitoken/shown.html", title="The new API token", issued=issued
            )

        return self.decide(request, form, question, run)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Raise `Http404`: a token has no page of its own."""
        raise Http404  # no field of a token can be changed

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke a token."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Revoke the token “{row}”",
            text="Programs that use it are refused from now on.",
            button="Revoke",
            back=self.url("changelist"),
            danger=True,
            done="The token is revoked.",
        )
        form = forms.Form(posted(request))
        return self.decide(request, form, question, acting(revoke_api_token, row.pk))

"""Engagements of auditors in the admin, and the page on which an auditor sets the password."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.forms import SetPasswordForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters

from registry.admin.fields import MomentField, reason_field
from registry.admin.lists import badge
from registry.admin.pages import OfficerAdmin, Question, acting, posted
from registry.agents.models import Organisation
from registry.officers.actor import Actor
from registry.officers.engagements import (
    LINK_LIFE,
    begin_engagement,
    end_engagement,
    engagement_of_link,
    use_link,
)
from registry.officers.groups import AUDITORS
from registry.officers.models import Engagement
from registry.officers.rights import groups_within

LINK_HOURS = int(LINK_LIFE.total_seconds() // 3600)


class NewEngagementForm(forms.Form):
    """The form that sets up an engagement."""

    name = forms.CharField(max_length=150, help_text="The name with which the auditor signs in.")
    everything = forms.BooleanField(required=False, help_text="All organisations, all sections.")
    organisations = forms.ModelMultipleChoiceField(
        Organisation.objects.all(), required=False, help_text="Or only what concerns these."
    )
    begins_at = MomentField(label="From (UTC)", required=False, help_text="Empty means now.")
    ends_at = MomentField(label="Until (UTC)")


class EndForm(forms.Form):
    """The form that ends an engagement."""

    reason = reason_field(help_text="Kept in the trail.")


@admin.register(Engagement)
class EngagementAdmin(OfficerAdmin[Engagement]):
    """The list of engagements, and the page that sets one up."""

    when_empty = "No auditor has an engagement."
    list_display = ("account", "state", "scope", "begins_at", "ends_at")
    list_display_links = None
    list_select_related = ("account",)

    def get_urls(self) -> list[URLPattern]:
        """Return the address of the decision, then Django's own."""
        return [self.decision_url("<str:object_id>/end/", self.end_view), *super().get_urls()]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user sets up engagements: the list has names of people."""
        return request.user.has_perm("registry.change_engagement")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the user sets up engagements."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may set one up: nobody grants more rights than they have."""
        within = groups_within(request.user).filter(name=AUDITORS)
        return super().has_add_permission(request) and within.exists()

    @admin.display(description="state")
    def state(self, row: Engagement) -> SafeString:
        """Return whether the engagement runs, with a link that ends it."""
        now = datetime.now(UTC)
        if row.ended_at is not None or row.ends_at <= now:
            return badge("ended")
        word = badge("running", "good") if row.is_running(now) else badge("to come")
        waits = "" if row.link_used_at else " (the link was not used yet)"
        return format_html('{}{} <a href="{}">end</a>', word, waits, self.url("end", row.pk))

    @admin.display(description="scope")
    def scope(self, row: Engagement) -> str:
        """Return the names of the organisations."""
        if row.everything:
            return "everything"
        return ", ".join(_names(row.organisations))

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that sets up an engagement; show its link once."""
        question = Question(
            title="Set up an engagement",
            text="The auditor gets an account that reads the trail for this time, and nothing else"
            f" can be done with it. You get a link that works once, for {LINK_HOURS} hours. Give"
            " it to the auditor, who sets a password there. Nobody else learns it.",
            button="Set up",
            back=self.url("changelist"),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            begun = begin_engagement(
                values["name"],
                organisations=[row.uid for row in values["organisations"]],
                everything=values["everything"],
                begins_at=values["begins_at"] or datetime.now(UTC),
                ends_at=values["ends_at"],
                actor=actor,
            )
            link = settings.ATP_PUBLIC_URL + reverse("engagement", args=[begun.secret])
            return self.render(
                request,
                "engagement/shown.html",
                title="The auditor's link",
                row=begun.row,
                link=link,
            )

        return self.decide(request, NewEngagementForm(posted(request)), question, run)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Raise `Http404`: an engagement has no page of its own."""
        raise Http404

    def end_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End an engagement."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"End the engagement of “{row.account.get_username()}”",
            text="Sessions and tokens of this account are refused from now on.",
            button="End",
            back=self.url("changelist"),
            danger=True,
            done="The engagement has ended.",
        )
        form = EndForm(posted(request))
        return self.decide(request, form, question, acting(end_engagement, row.pk))


@sensitive_post_parameters()
def open_engagement(request: HttpRequest, secret: str) -> HttpResponse:
    """The page behind an auditor's link: it sets the password, once.

    Nothing is hashed for a link that is unknown, used or expired.
    """
    engagement = engagement_of_link(secret)
    if engagement is None:
        return _page(request, form=None, status=404)
    form = SetPasswordForm(engagement.account, posted(request))
    if request.method != "POST" or not form.is_valid():
        return _page(request, form=form, account=engagement.account)
    if use_link(secret, form.cleaned_data["new_password1"]) is None:
        return _page(request, form=None, status=404)
    messages.success(request, "The password is set. Sign in with it.")
    return HttpResponseRedirect(reverse("admin:login"))


def _page(request: HttpRequest, *, status: int = 200, **context: Any) -> HttpResponse:
    template = "admin/registry/engagement/password.html"
    answer = TemplateResponse(request, template, context, status=status)
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _names(uids: list[str]) -> list[str]:
    return sorted(Organisation.objects.filter(uid__in=uids).values_list("name", flat=True))

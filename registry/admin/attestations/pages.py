"""The admin pages of attestations: the list, the page of each, upload, renew and revoke."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry import impact
from registry.admin.attestations.forms import UploadForm
from registry.admin.fields import EFFECT, OptionalReasonForm, ReasonForm
from registry.admin.lists import badge
from registry.admin.pages import OfficerAdmin, Question, acting, posted
from registry.agents.models import Agent
from registry.attestations.actions import (
    renew_attestation,
    revoke_attestation,
    upload_attestation,
)
from registry.attestations.models import Attestation
from registry.attestations.querysets import State, states
from registry.officers.actor import Actor

STATE_WORDS = {
    "valid": "valid",
    "expired": "expired",
    "revoked": "revoked",
    "unreadable": "does not hold",
    "issuer": "issuer may not vouch",
}


class ValidityFilter(admin.SimpleListFilter):
    """Filters attestations by validity; the issuer's chain is not checked."""

    title = "validity"
    parameter_name = "validity"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [("good", "neither expired nor revoked"), ("expired", "expired"), ("bad", "faulty")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[Attestation]
    ) -> QuerySet[Attestation]:
        """Return the rows that the chosen value selects."""
        now = datetime.now(UTC)
        if self.value() == "good":
            return queryset.filter(revoked_at=None, expires_at__gt=now)
        if self.value() == "expired":
            return queryset.filter(revoked_at=None, expires_at__lte=now)
        if self.value() == "bad":
            return queryset.exclude(unreadable_reason="")
        return queryset


@admin.register(Attestation)
class AttestationAdmin(OfficerAdmin[Attestation]):
    """The list of attestations and the page of each."""

    change_list_template = "admin/registry/attestation/change_list.html"
    list_display = ("agent", "state_badge", "level", "issuer", "names", "until")
    list_filter = (ValidityFilter, "level", "issuer")
    list_select_related = ("agent", "issuer")
    search_fields = ("agent__id", "=jti", "=jkt")
    search_help_text = "Part of an agent id, or a jti or thumbprint in full."

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        return [
            self.decision_url("upload/", self.upload_view),
            self.decision_url("<str:object_id>/renew/", self.renew_view),
            self.decision_url("<str:object_id>/revoke/", self.revoke_view),
            *super().get_urls(),
        ]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Compute the states of all rows of the page at once."""
        changelist = super().get_changelist_instance(request)
        rows: list[Any] = list(changelist.result_list)
        worth = states(rows, time.time())
        for row in rows:
            row.worth = worth[row.jti]
        changelist.result_list = rows
        return changelist

    @admin.display(description="state now")
    def state_badge(self, row: Attestation) -> SafeString:
        """Return the present state, with its reason."""
        return state_badge(getattr(row, "worth", None) or states([row], time.time())[row.jti])

    @admin.display(description="capabilities")
    def names(self, row: Attestation) -> str:
        """Return the first three capabilities, and how many more there are."""
        more = len(row.capabilities) - 3
        shown = ", ".join(row.capabilities[:3]) or "none"
        return f"{shown} and {more} more" if more > 0 else shown

    @admin.display(description="until", ordering="expires_at")
    def until(self, row: Attestation) -> str:
        """Return the date on which it expires (UTC)."""
        return f"{row.expires_at:%Y-%m-%d}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: an attestation is issued or uploaded."""
        return False  # officers attest an agent on its page, or upload a signed attestation

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the page of one row."""
        row = self.get_row(request, object_id)
        return self.render(
            request,
            "attestation/page.html",
            title=str(row),
            row=row,
            badge=self.state_badge(row),
            agent_is_revoked=row.agent.status == Agent.Status.REVOKED,
            may_change=self.has_change_permission(request, row),
        )

    def upload_view(self, request: HttpRequest) -> HttpResponse:
        """Upload an attestation that an issuer has signed elsewhere."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        question = Question(
            title="Upload an attestation",
            text="The hub checks the signature, the subject and the issuer's limits before it"
            " stores the attestation.",
            button="Upload",
            back=self.url("changelist"),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            row = upload_attestation(values["token"], actor=actor)
            return HttpResponseRedirect(self.url("change", row.jti))

        return self.decide(request, UploadForm(posted(request)), question, run)

    def renew_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Issue the same attestation again, from now on."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Renew: {row}",
            text="A new attestation is issued for the agent's present key. It has the same level"
            " and capabilities, and the same length, from now on.",
            button="Renew",
            back=self.url("changelist"),
            about=(row, row.agent),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            renewed = renew_attestation(row.jti, **values, actor=actor)
            return HttpResponseRedirect(self.url("change", renewed.jti))

        return self.decide(request, OptionalReasonForm(posted(request)), question, run)

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke an attestation."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Revoke: {row}",
            text="The attestation stops counting from the next envelope on. This is final.",
            button="Revoke",
            back=self.url("change", row.jti),
            about=(row,),
            facts=((EFFECT, impact.of_attestation(row.jti)),),
            danger=True,
            done="The attestation is revoked.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(revoke_attestation, row.jti))


def state_badge(state: State) -> SafeString:
    """Return the badge of an attestation's state, with its reason."""
    shown = badge(state.name, STATE_WORDS[state.name])
    return format_html("{} {}", shown, state.detail) if state.detail else shown

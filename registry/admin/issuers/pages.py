"""The admin pages of issuers: the list, the page of each, and the decisions about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry import impact
from registry.admin.fields import EFFECT, ReasonForm
from registry.admin.issuers.forms import ChangeIssuerForm, IssuerKeyForm, NewIssuerForm
from registry.admin.lists import DealtWithFilter, badge
from registry.admin.pages import OfficerAdmin, Question, ReadOnlyAdmin, acting, posted
from registry.issuers.actions import (
    add_issuer_key,
    change_issuer,
    create_issuer,
    resume_issuer,
    revoke_issuer,
    revoke_issuer_key,
    suspend_issuer,
)
from registry.issuers.models import Issuer, IssuerKey
from registry.issuers.querysets import issuer_url
from registry.issuers.standing import Standing, issuer_standings
from registry.officers.actor import Actor

SHOWN = 20  # attestations on the page; their own list has all


class PositionFilter(DealtWithFilter):
    """Filters issuers by whether they are trust anchors or stand below another issuer."""

    title = parameter_name = "position"
    column = "parent"
    waiting = ("anchor", "trust anchor")
    dealt_with = ("below", "below another issuer")


@admin.register(Issuer)
class IssuerAdmin(OfficerAdmin[Issuer]):
    """The list of issuers, the page of each, and the decisions about them."""

    list_display = (
        "name", "standing_badge", "parent", "highest_level", "patterns", "longest_validity_days",
    )  # fmt: skip
    list_filter = ("status", "highest_level", PositionFilter)
    list_select_related = ("parent",)
    search_fields = ("name", "slug")
    search_help_text = "Part of a name."

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        one = "<str:object_id>"
        return [
            self.decision_url(f"{one}/edit/", self.edit_view),
            self.decision_url(f"{one}/add-key/", self.add_key_view),
            self.decision_url(f"{one}/suspend/", self.suspend_view),
            self.decision_url(f"{one}/resume/", self.resume_view),
            self.decision_url(f"{one}/revoke/", self.revoke_view),
            self.decision_url(f"{one}/keys/<str:kid>/revoke-key/", self.revoke_key_view),
            *super().get_urls(),
        ]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Compute for all rows of the page at once whether they may attest."""
        changelist = super().get_changelist_instance(request)
        standings = issuer_standings(time.time())
        rows: list[Any] = list(changelist.result_list)
        for row in rows:
            row.standing = standings.get(row.pk)
        changelist.result_list = rows
        return changelist

    @admin.display(description="may attest now")
    def standing_badge(self, row: Issuer) -> SafeString:
        """Return whether the issuer may attest now, and if not, why."""
        return standing_badge(row, getattr(row, "standing", None))

    @admin.display(description="may vouch for")
    def patterns(self, row: Issuer) -> str:
        """Return the patterns of capabilities that it may vouch for."""
        return ", ".join(row.capability_patterns) or "no capability"

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that adds an issuer."""
        form = NewIssuerForm(posted(request), initial={"parent": request.GET.get("parent")})
        question = Question(
            title="Add an issuer",
            text="The issuer vouches for agents within the limits below. The limits must not be"
            " wider than those of its parent.",
            button="Add",
            back=self.url("changelist"),
        )

        def run(values: Mapping[str, Any], actor: Actor) -> HttpResponse:
            row = create_issuer(
                values["slug"],
                form.limits(),
                name=values["name"],
                parent=values["parent"],
                public_jwk=values["public_jwk"],
                actor=actor,
            )
            return HttpResponseRedirect(self.url("change", row.pk))

        return self.decide(request, form, question, run)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show an issuer with its chain, children, keys and attestations."""
        issuer = self.get_row(request, object_id)
        standings = issuer_standings(time.time())
        children = list(issuer.children.all())
        return self.render(
            request,
            "issuer/page.html",
            title=issuer.name,
            issuer=issuer,
            badge=standing_badge(issuer, standings.get(issuer.pk)),
            chain=_chain(issuer),
            children=[(c, standing_badge(c, standings.get(c.pk))) for c in children],
            keys=list(issuer.keys.all()),
            attestations=list(issuer.attestations.select_related("agent")[:SHOWN]),
            attestation_total=issuer.attestations.count(),
            names_itself=issuer_url(issuer.slug),
            may_change=self.has_change_permission(request, issuer),
        )

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Change an issuer's limits."""
        issuer = self.get_row(request, object_id, to_change=True)
        initial = ChangeIssuerForm.initial_of(issuer)
        form = ChangeIssuerForm(posted(request), issuer=issuer, initial=initial)
        question = Question(
            title=f"Change what {issuer} may attest",
            text="Attestations beyond the new limits stop counting. An issuer below it whose limits"
            " are then wider stops counting too.",
            button="Save",
            back=self.url("change", issuer.pk),
            about=(issuer,),
            done="The limits are changed.",
        )

        def run(values: Mapping[str, Any], actor: Actor) -> None:
            change_issuer(issuer.pk, form.limits(), actor=actor, reason=values["reason"])

        return self.decide(request, form, question, run)

    def add_key_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Give an issuer a new key and retire the old one."""
        issuer = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Give {issuer} another key",
            text="The present key retires. Attestations signed with it stay valid.",
            button="Add the key",
            back=self.url("change", issuer.pk),
            about=(issuer,),
            done="The key is added.",
        )
        form = IssuerKeyForm(posted(request))
        return self.decide(request, form, question, acting(add_issuer_key, issuer.pk))

    def suspend_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Suspend an issuer."""
        text = (
            "The attestations of this issuer and of all issuers below it stop counting at once."
            " An agent that no other issuer vouches for is disconnected, and can't connect until"
            " this issuer is resumed."
        )
        return self._decide_by_reason(request, object_id, "Suspend", text, suspend_issuer)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Resume a suspended issuer."""
        text = "The attestations of this issuer and of all issuers below it count again."
        return self._decide_by_reason(request, object_id, "Resume", text, resume_issuer)

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Revoke an issuer for good."""
        text = (
            "This is final. The attestations of this issuer and of all issuers below it stop"
            " counting at once. An agent that no other issuer vouches for is disconnected. To stop"
            " the issuer only for a while, suspend it."
        )
        return self._decide_by_reason(request, object_id, "Revoke", text, revoke_issuer)

    def revoke_key_view(self, request: HttpRequest, object_id: str, kid: str) -> HttpResponse:
        """Revoke an issuer's key."""
        issuer = self.get_row(request, object_id, to_change=True)
        key = issuer.keys.filter(pk=kid).first()
        if key is None:
            raise Http404
        question = Question(
            title=f"Revoke a key of {issuer}",
            text="This is final. All attestations signed with this key stop counting at once.",
            button="Revoke this key",
            back=self.url("change", issuer.pk),
            about=(issuer, key),
            facts=(("Thumbprint", key.kid), (EFFECT, impact.of_issuer_key(key.kid))),
            danger=True,
            done="The key is revoked.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(revoke_issuer_key, key.kid))

    def _decide_by_reason(
        self,
        request: HttpRequest,
        object_id: str,
        verb: str,
        text: str,
        action: Callable[..., Any],
    ) -> HttpResponse:
        issuer = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"{verb} {issuer}",
            text=text,
            button=verb,
            back=self.url("change", issuer.pk),
            about=(issuer,),
            facts=() if verb == "Resume" else ((EFFECT, impact.of_issuer(issuer)),),
            danger=verb != "Resume",
            done=f"{verb} {issuer}: done.",
        )
        form = ReasonForm(posted(request))
        return self.decide(request, form, question, acting(action, issuer.pk))


@admin.register(IssuerKey)
class IssuerKeyAdmin(ReadOnlyAdmin[IssuerKey]):
    """The list of all issuers' keys, to look up a thumbprint; each row leads to its issuer."""

    list_display = ("kid", "issuer", "status", "algorithm", "created_at", "ended_at")
    list_filter = ("status", "issuer")
    search_fields = ("=kid",)
    search_help_text = "A thumbprint, in full."

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Redirect to the page of the key's issuer."""
        row = self.get_row(request, object_id)
        page = reverse("admin:registry_issuer_change", args=[quote(row.issuer_id)])
        return HttpResponseRedirect(page)


def standing_badge(issuer: Issuer, standing: Standing | None) -> SafeString:
    """Return whether an issuer may attest now, and if not, which issuer of its chain is why."""
    if standing is not None and not standing.code:
        return badge("active", "yes")
    kind = issuer.status if issuer.status != Issuer.Status.ACTIVE else "blocked"
    detail = standing.detail if standing else "unknown"
    return format_html("{} {}", badge(kind, "no"), detail)


def _chain(issuer: Issuer) -> list[Issuer]:
    """Return the issuers from the trust anchor down to this one; a cycle is followed once."""
    chain, link = [issuer], issuer.parent
    while link is not None and link not in chain:
        chain.append(link)
        link = link.parent
    return chain[::-1]

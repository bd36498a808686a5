"""Lists of all agents' keys and enrolment tokens. Decisions about them are on the agent's page."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from atp.trust.fingerprint import fingerprint
from atp.wire.words import KEY_ALGORITHMS
from registry.admin.lists import DealtWithFilter, WordsFilter, badge
from registry.admin.pages import ReadOnlyAdmin
from registry.agents.models import AgentKey, EnrolmentToken


class _OfAgent(ReadOnlyAdmin[Any]):
    """A list of rows that belong to agents; each row leads to the agent's page."""

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.get_row(request, object_id)
        return HttpResponseRedirect(_agent_page(row.agent_id))

    @admin.display(description="agent", ordering="agent_id")
    def agent_link(self, row: Any) -> SafeString:
        """Return a link to the agent's page."""
        return format_html('<a href="{}">{}</a>', _agent_page(row.agent_id), row.agent_id)


class AlgorithmFilter(WordsFilter):
    """Filters keys by their algorithm."""

    title = parameter_name = "algorithm"
    words = KEY_ALGORITHMS


@admin.register(AgentKey)
class AgentKeyAdmin(_OfAgent):
    """The list of all agents' keys, to look up a thumbprint."""

    list_display = ("agent_link", "status_badge", "algorithm", "shown", "enrolled_at", "ended_at")
    list_filter = ("status", AlgorithmFilter)
    search_fields = ("=kid", "agent__id")
    search_help_text = "A thumbprint in full, or part of an agent id."

    @admin.display(description="status", ordering="status")
    def status_badge(self, row: AgentKey) -> SafeString:
        """Return the key's status."""
        return badge(row.status, row.get_status_display())

    @admin.display(description="fingerprint")
    def shown(self, row: AgentKey) -> SafeString:
        """Return the fingerprint as people read it to each other."""
        return format_html("<code>{}</code>", fingerprint(row.kid))


class Used(DealtWithFilter):
    """Filters enrolment tokens by whether an agent has enrolled with them."""

    title = parameter_name = "use"
    column = "used_at"
    waiting = ("unused", "not used")
    dealt_with = ("used", "used")


class Misused(DealtWithFilter):
    """Filters enrolment tokens by whether they were tried again after their use."""

    title, parameter_name = "second use", "misuse"
    column = "misused_at"
    waiting = ("none", "not tried twice")
    dealt_with = ("tried-twice", "tried twice")


@admin.register(EnrolmentToken)
class EnrolmentTokenAdmin(_OfAgent):
    """The list of all enrolment tokens; it never shows a token's text."""

    list_display = ("agent_link", "state", "created_at", "created_by", "expires_at", "used_at")
    list_filter = (Used, Misused)
    search_fields = ("agent__id",)
    search_help_text = "Part of an agent id."
    ordering = ("-created_at",)

    @admin.display(description="state")
    def state(self, row: EnrolmentToken) -> SafeString:
        """Return whether the token is open, used, expired or was tried twice."""
        if row.misused_at:
            name = "tried twice"
        elif row.used_at:
            name = "used"
        else:
            name = "expired" if row.expires_at <= datetime.now(UTC) else "open"
        return badge(name.replace(" ", "-"), name)


def _agent_page(agent_id: str) -> str:
    return reverse("admin:registry_agent_change", args=[quote(agent_id)])

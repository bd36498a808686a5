"""The list of agents, the page of one, and the forms that register and change them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry import hooks
from registry.admin.agents.decisions import AgentDecisions
from registry.admin.agents.forms import ChangeAgentForm, NewAgentForm
from registry.admin.agents.overview import overview_of
from registry.admin.lists import badge
from registry.admin.pages import Question, posted
from registry.admin.readings import entered
from registry.agents.actions import change_agent, register_agent
from registry.agents.models import Agent, AgentKey
from registry.officers.actor import Actor
from registry.officers.readings import PageOpened
from registry.scores.inputs import inputs_of
from registry.scores.models import Score
from registry.trail.kinds import Kind


class KeyFilter(admin.SimpleListFilter):
    """Filters agents by a key that waits for approval, or by having no active key."""

    title = "key"
    parameter_name = "key"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the choices of the filter: the value in the URL, and the words."""
        return [("waiting", "waits for approval"), ("none", "none in use")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Agent]) -> QuerySet[Agent]:
        """Return the rows that the chosen value selects."""
        if self.value() == "waiting":
            waiting = AgentKey.objects.pending().values("agent")
            return queryset.filter(pk__in=waiting)
        if self.value() == "none":
            return queryset.exclude(pk__in=AgentKey.objects.usable().values("agent"))
        return queryset


def level_badge(level: str | None) -> SafeString | str:
    """Return the attested level as a badge, or "-" if no attestation is valid now."""
    if not level:
        return "-"
    return badge(level)


@admin.register(Agent)
class AgentAdmin(AgentDecisions):
    """The list of agents, the page of each, and the forms to register and change them."""

    change_list_template = "admin/registry/agent/change_list.html"
    list_display = (
        "id", "status_badge", "level_badge", "score_total", "organisation", "owner_name",
        "tag_names", "connected",
    )  # fmt: skip
    list_filter = ("status", KeyFilter, "organisation", "tags")
    list_select_related = ("organisation",)
    search_fields = ("id", "owner_name", "description", "organisation__name")
    search_help_text = "Part of an id, an owner, an organisation or a description."
    list_per_page = 50
    actions = ("attest_selected", "suspend_selected", "resume_selected", "revoke_selected")

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the officers' decisions, then Django's own."""
        return [*self.decision_urls(), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Agent]:
        """Return agents with their newest score, keys that wait for approval, and tags."""
        newest = Score.objects.filter(agent=OuterRef("pk")).order_by("-id").values("total")[:1]
        waiting = Count("keys", filter=Q(keys__status=AgentKey.Status.PENDING), distinct=True)
        rows = super().get_queryset(request).annotate(score_now=Subquery(newest), waiting=waiting)
        return rows.prefetch_related("tags")

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Read connections and levels for the whole page at once, not for each row."""
        changelist = super().get_changelist_instance(request)
        rows: list[Any] = list(changelist.result_list)
        ids = [row.pk for row in rows]
        online, inputs = hooks.online_agents(ids), inputs_of(ids, time.time())
        for row in rows:
            row.is_online = row.pk in online
            row.level_now = inputs[row.pk].level if row.pk in inputs else None
        changelist.result_list = rows
        return changelist

    @admin.display(description="status", ordering="status")
    def status_badge(self, row: Agent) -> SafeString:
        """Return the status, and a second badge if a key waits for approval."""
        if getattr(row, "waiting", 0):
            return format_html("{} {}", badge(row.status), badge("waiting", "key to approve"))
        return badge(row.status)

    @admin.display(description="level")
    def level_badge(self, row: Agent) -> SafeString | str:
        """Return the level that the best valid attestation gives now."""
        return level_badge(getattr(row, "level_now", None))

    @admin.display(description="score", ordering="score_now")
    def score_total(self, row: Agent) -> str:
        """Return the last stored score, 0 to 100."""
        total: int | None = getattr(row, "score_now", None)
        return "-" if total is None else str(total)

    @admin.display(description="tags")
    def tag_names(self, row: Agent) -> str:
        """Return the agent's tags, separated by commas."""
        return ", ".join(tag.name for tag in row.tags.all()) or "-"

    @admin.display(description="connected", boolean=True)
    def connected(self, row: Agent) -> bool:
        """Return whether the agent has a live session on any node."""
        return bool(getattr(row, "is_online", False))

    @admin.action(description="Attest", permissions=["change"])
    def attest_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse:
        """Go to the page that attests the selected agents."""
        return self.for_many(request, queryset, "attest-many", "agent.attest")

    @admin.action(description="Suspend, with a reason", permissions=["change"])
    def suspend_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse:
        """Go to the page that suspends the selected agents."""
        return self.for_many(request, queryset, "suspend-many", "agent.suspend")

    @admin.action(description="Resume, with a reason", permissions=["change"])
    def resume_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse:
        """Go to the page that resumes the selected agents."""
        return self.for_many(request, queryset, "resume-many", "agent.resume")

    @admin.action(description="Revoke for good, with a reason", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[Agent]) -> HttpResponse:
        """Go to the page that revokes the selected agents."""
        return self.for_many(request, queryset, "revoke-many", "agent.revoke")

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that registers an agent."""
        form = NewAgentForm(posted(request), initial={"sensitivity_floor": "public"})
        question = Question(
            title="Register an agent",
            text="The agent stays pending until its owner has enrolled a key and you have compared"
            " the key's fingerprint.",
            button="Register",
            back=self.url("changelist"),
        )
        return self.decide(request, form, question, self._register)

    def _register(self, values: Mapping[str, Any], actor: Actor) -> HttpResponse:
        fields = dict(values)
        row = register_agent(fields.pop("id"), **fields, actor=actor)
        return HttpResponseRedirect(self.url("change", row.pk))

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show everything about an agent; `edit_view` has the form."""
        agent = self.get_row(request, object_id)
        opened = PageOpened(Kind.TRAFFIC_READ, agent.pk)
        return entered(request, opened, lambda: self._page_of(request, agent))

    def _page_of(self, request: HttpRequest, agent: Agent) -> HttpResponse:
        return self.render(
            request,
            "agent/page.html",
            title=agent.pk,
            agent=agent,
            overview=overview_of(agent),
            may_change=self.has_change_permission(request, agent),
        )

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Change an agent's registration."""
        agent = self.get_row(request, object_id, to_change=True)
        form = ChangeAgentForm(posted(request), initial=ChangeAgentForm.initial_of(agent))
        question = Question(
            title=f"Change {agent.pk}",
            text="The change applies from the next envelope on.",
            button="Save",
            back=self.url("change", agent.pk),
            about=(agent,),
            done=f"Agent {agent.pk} is changed.",
        )

        def run(values: Mapping[str, Any], actor: Actor) -> None:
            fields = dict(values)
            reason, tags = fields.pop("reason"), fields.pop("tags")
            change_agent(agent.pk, fields, tags=tags, actor=actor, reason=reason)

        return self.decide(request, form, question, run)

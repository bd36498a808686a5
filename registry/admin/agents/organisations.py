"""The admin pages of organisations and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.admin.fields import reason_field
from registry.admin.look_alikes import NameForm
from registry.admin.pages import OfficerAdmin, Question, acting, posted
from registry.agents.actions import change_organisation, create_organisation, create_tag
from registry.agents.models import Organisation, Tag
from registry.officers.actor import Actor


class OrganisationForm(NameForm):
    """The form that adds an organisation."""

    name = forms.CharField(max_length=120)
    contact = forms.CharField(
        required=False, max_length=200, help_text="The person to call, and how."
    )


class ChangeOrganisationForm(OrganisationForm):
    """The form that changes an organisation."""

    reason = reason_field()


class TagForm(forms.Form):
    """The form that adds a tag."""

    name = forms.SlugField(
        max_length=60, help_text="In lower case, such as sandbox-host. Policy rules can test it."
    )


class _Counted(OfficerAdmin[Any]):
    """A list that shows how many agents each row has."""

    filter_name = ""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request).annotate(agent_total=Count("agents"))
        return rows

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        """Return no links for users who may not change rows: rows have no page to read."""
        if not self.has_change_permission(request):
            return None
        return super().get_list_display_links(request, list_display)

    @admin.display(description="agents", ordering="agent_total")
    def agent_count(self, row: Any) -> SafeString:
        """Return the number of agents, as a link to their list."""
        url = f"{reverse('admin:registry_agent_changelist')}?{self.filter_name}={row.pk}"
        return format_html('<a href="{}">{}</a>', url, row.agent_total)


@admin.register(Organisation)
class OrganisationAdmin(_Counted):
    """The list of organisations, and the forms to add and change them."""

    list_display = ("name", "contact", "agent_count", "created_at")
    search_fields = ("name", "contact")
    search_help_text = "Part of a name or a contact."
    filter_name = "organisation__id__exact"

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that adds an organisation."""
        question = Question(
            title="Add an organisation",
            text="A broadcast reaches the agents of the sender's organisation. A violation of one"
            " agent also lowers the scores of the other agents a little.",
            button="Add",
            back=self.url("changelist"),
            done="The organisation is added.",
        )

        def run(values: Mapping[str, Any], actor: Actor) -> None:
            create_organisation(values["name"], contact=values["contact"], actor=actor)

        return self.decide(request, OrganisationForm(posted(request)), question, run)

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the form that changes an organisation."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Change {row}",
            text="If you change the name, also change the policies that name the organisation.",
            button="Save",
            back=self.url("changelist"),
            about=(row,),
            done="The organisation is changed.",
        )
        form = ChangeOrganisationForm(
            posted(request), initial={"name": row.name, "contact": row.contact}
        )
        return self.decide(request, form, question, acting(change_organisation, row.pk))


@admin.register(Tag)
class TagAdmin(_Counted):
    """The list of tags, and the form to add one."""

    list_display = ("name", "agent_count")
    list_display_links = None
    search_fields = ("name",)
    filter_name = "tags__id__exact"

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: stored policies name the tag."""
        return False  # stored policies name it; agents get and lose tags on their own pages

    def add_page(self, request: HttpRequest) -> HttpResponse:
        """Show the form that adds a tag."""
        question = Question(
            title="Add a tag",
            text="To give a tag to an agent, open the agent's page and choose “Change”.",
            button="Add",
            back=self.url("changelist"),
            done="The tag is added.",
        )

        def run(values: Mapping[str, Any], actor: Actor) -> None:
            create_tag(values["name"], actor=actor)

        return self.decide(request, TagForm(posted(request)), question, run)

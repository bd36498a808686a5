"""Deactivated accounts in the admin, each with the decision that erases the person."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString

from registry.admin.fields import reason_field
from registry.admin.pages import OfficerAdmin, Question, acting, posted
from registry.officers.models import Person
from registry.officers.people import erase_person, kept_until
from registry.officers.rights import may_touch_account


class EraseForm(forms.Form):
    """The form that erases a person."""

    reason = reason_field(help_text="Kept in the trail.")


@admin.register(Person)
class PersonAdmin(OfficerAdmin[Person]):
    """Deactivated accounts. The list shows no pseudonyms: each lookup of one is entered."""

    when_empty = "No account is deactivated. Only such accounts can be erased."
    list_display = ("name", "kept", "erase")
    list_display_links = None
    list_select_related = ("account",)

    def get_urls(self) -> list[URLPattern]:
        """Return the address of the decision, then Django's own."""
        return [self.decision_url("<str:object_id>/erase/", self.erase_view), *super().get_urls()]

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user manages accounts."""
        return request.user.has_perm("auth.change_user")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may change the account of this person."""
        return request.user.has_perm("auth.change_user") and (
            obj is None or may_touch_account(request.user, obj.account)
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return `False`: a person comes with an account."""
        return False

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the user manages accounts."""
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Person]:
        """Return the people whose accounts are deactivated."""
        rows: QuerySet[Person] = super().get_queryset(request)
        return rows.filter(account__is_active=False)

    @admin.display(description="account", ordering="account__username")
    def name(self, row: Person) -> str:
        """Return the name of the account."""
        return row.account.get_username()

    @admin.display(description="can be erased from (UTC)")
    def kept(self, row: Person) -> str:
        """Return until when the person is kept."""
        return f"{kept_until(row):%Y-%m-%d %H:%M}"

    @admin.display(description="")
    def erase(self, row: Person) -> SafeString:
        """Return a link to the decision."""
        return format_html('<a href="{}">erase</a>', self.url("erase", row.pk))

    def row_page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Raise `Http404`: a person has no page of its own."""
        raise Http404

    def erase_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Erase a person."""
        row = self.get_row(request, object_id, to_change=True)
        question = Question(
            title=f"Erase the person behind “{row.account.get_username()}”",
            text="The hub forgets the name, the e-mail address and the pseudonym of this account."
            " Entries keep the pseudonym, and nobody can find out any more whose it was. This"
            " can't be undone.",
            button="Erase",
            back=self.url("changelist"),
            danger=True,
            done="The person is erased.",
        )
        return self.decide(
            request, EraseForm(posted(request)), question, acting(erase_person, row.pk)
        )

"""Accounts and groups of officers and auditors; each change of their rights is in the trail.

The pages are Django's. Each of their writes runs in one `registry_change` by the person who is
signed in: the row and its entry are written in one transaction, or neither is
(`registry.officers.watching` makes the entry). `registry.officers.rights` decides which rights a
person may grant and which accounts and groups they may change.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.forms import AdminPasswordChangeForm
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse_lazy

from registry.admin.closed_lists import ClosedList
from registry.admin.officers.login import (
    MOST_FAILURES,
    account_name,
    failures_of,
    note_failure,
    sign_in_limit,
    too_many,
)
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.rights import (
    groups_within,
    may_touch_account,
    may_touch_group,
    permissions_within,
)

View = Callable[..., HttpResponse]

admin.site.unregister(User)
admin.site.unregister(Group)


def _in_one_change(view: View) -> View:
    """Run a POST to one of Django's views in one change by the user who is signed in."""

    @wraps(view)
    def wrapped(self: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "POST":
            return view(self, request, *args, **kwargs)
        with registry_change(Actor.of_user(request.user), moves_epoch=False):
            return view(self, request, *args, **kwargs)

    return wrapped


class _Entered:
    """Django's pages of a model whose rows give rights; each write is a change by its person."""

    may_touch: Callable[[Any, Any], bool]

    @_in_one_change
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().changeform_view(request, *args, **kwargs)  # type: ignore[misc,no-any-return]  # a mixin

    @_in_one_change
    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().delete_view(request, *args, **kwargs)  # type: ignore[misc,no-any-return]  # a mixin

    @_in_one_change
    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return super().changelist_view(request, *args, **kwargs)  # type: ignore[misc,no-any-return]  # a mixin

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_change_permission(request, obj)  # type: ignore[misc]  # a mixin
        return allowed and (obj is None or self.may_touch(request.user, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)  # type: ignore[misc]  # a mixin
        return allowed and (obj is None or self.may_touch(request.user, obj))

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        """Offer only the groups and permissions that this person may grant."""
        within = groups_within if db_field.name == "groups" else permissions_within
        kwargs.setdefault("queryset", within(request.user))
        return super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]  # a mixin


@admin.register(User)
class AccountAdmin(_Entered, ClosedList[User], UserAdmin[User]):
    """People with an account. It is deactivated, never deleted: what they did keeps their name."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return `False`: untick "active" instead."""
        return False

    may_touch = staticmethod(may_touch_account)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Let only a superuser change who is a superuser."""
        fields = super().get_readonly_fields(request, obj)
        return fields if request.user.is_superuser else (*fields, "is_superuser")

    @_in_one_change
    def user_change_password(
        self, request: HttpRequest, id: str, form_url: str = ""
    ) -> HttpResponse:
        """Set another person's password and enter it in the trail."""
        return super().user_change_password(request, id, form_url)


@admin.register(Group)
class RoleAdmin(_Entered, ClosedList[Group], GroupAdmin):
    """The list of groups, which are roles, and the page of each."""

    may_touch = staticmethod(may_touch_group)


class OwnPasswordForm(AdminPasswordChangeForm):
    """Django's own form, whose change is entered, and whose failures are counted.

    Without that, a session left open would be a place to guess its account's password.
    """

    def clean_old_password(self) -> str:
        who = own_password_name(self.user)
        if failures_of(who) >= MOST_FAILURES:
            raise ValidationError("Too many failed attempts. Wait a minute and try again.")
        try:
            old: str = super().clean_old_password()
        except ValidationError:
            note_failure(who)
            raise
        return old

    def save(self, commit: bool = True) -> Any:
        """Store the password as a change by the account's owner."""
        with registry_change(Actor.of_user(self.user), moves_epoch=False):
            return super().save(commit)


def own_password_name(account: Any) -> str:
    """What the failures of an account on that page are counted under; no sign-in is kept out."""
    return f"{account_name(account.get_username())}:own"


def change_own_password(request: HttpRequest) -> HttpResponseBase:
    """The admin's page on which a person changes their own password.

    An account with too many changes under way gets 429, because each costs a hash.
    """
    if request.method != "POST":
        return _own_password_page(request)
    with sign_in_limit.counting(own_password_name(request.user)) as admitted:
        return _own_password_page(request) if admitted else too_many()


def _own_password_page(request: HttpRequest) -> HttpResponseBase:
    request.current_app = admin.site.name
    view = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse_lazy("admin:password_change_done"),
        extra_context=admin.site.each_context(request),
    )
    return view(request)

"""Accounts and groups of officers and auditors: what they may is in the trail, like all else.

Django's own pages do the work; each change they log is entered with what the account or group may
afterwards. The pages run in one transaction, so a change that can't be entered is not made.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest

from registry.officers.actor import Actor, pseudonym
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

admin.site.unregister(User)
admin.site.unregister(Group)


class _Entered:
    """Enters what Django's pages log: additions, changes and deletions."""

    def log_addition(self, request: HttpRequest, object: Any, message: Any) -> Any:
        _enter(Kind.OFFICER_CREATED, request, object, message)
        return super().log_addition(request, object, message)  # type: ignore[misc]  # a mixin

    def log_change(self, request: HttpRequest, object: Any, message: Any) -> Any:
        _enter(Kind.OFFICER_CHANGED, request, object, message)
        return super().log_change(request, object, message)  # type: ignore[misc]  # a mixin

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            _enter(Kind.OFFICER_CHANGED, request, row, "deleted")
        return super().log_deletions(request, queryset)  # type: ignore[misc]  # a mixin


@admin.register(User)
class AccountAdmin(_Entered, UserAdmin[User]):
    """People with an account. It is deactivated, never deleted: what they did keeps their name."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # untick "active" instead


@admin.register(Group)
class RoleAdmin(_Entered, GroupAdmin):
    """Groups, which are roles."""


def _enter(kind: Kind, request: HttpRequest, row: Any, message: Any) -> None:
    actor = Actor.of_user(request.user)
    subject = pseudonym(row.pk) if isinstance(row, User) else f"group:{row.name}"
    body = {"change": message, "after": _rights(row)}
    append([EntryDraft(kind=kind, actor=actor.name, subject=subject[:200], body=body)])


def _rights(row: Any) -> dict[str, Any]:
    """What the account or group may, as it stands now; never a password."""
    if isinstance(row, User):
        return {
            "active": row.is_active,
            "staff": row.is_staff,
            "superuser": row.is_superuser,
            "groups": sorted(row.groups.values_list("name", flat=True)),
            "permissions": sorted(row.user_permissions.values_list("codename", flat=True)),
        }
    return {"permissions": sorted(row.permissions.values_list("codename", flat=True))}

"""Entries about accounts and groups, and the operator's actions on accounts."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Group

from registry.change import registry_change
from registry.officers.actor import Actor, pseudonym
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

SUBJECT_MAX_CHARS = 200  # of the column


def account_draft(kind: Kind, account: Any, change: Any) -> EntryDraft:
    """Return an entry with the change and the account's rights after it, never with a password."""
    return _draft(kind, pseudonym(account.pk), change, _rights_of_account(account))


def group_draft(kind: Kind, group: Group, change: Any) -> EntryDraft:
    """Return an entry with the change and the rights of the group's members after it."""
    return _draft(kind, f"group:{group.name}", change, _rights_of_group(group))


def deletion_draft(row: Any) -> EntryDraft:
    """Return an entry about an account or a group before its deletion, with its rights."""
    of_account = isinstance(row, AbstractUser)
    subject = pseudonym(row.pk) if of_account else f"group:{row.name}"
    rights = _rights_of_account(row) if of_account else _rights_of_group(row)
    body = {"change": "deleted", "before": rights}
    return EntryDraft(Kind.OFFICER_CHANGED, subject=subject[:SUBJECT_MAX_CHARS], shared=body)


def create_superuser(name: str, *, email: str = "", password: str | None, actor: Actor) -> Any:
    """Make an account with all rights. Without a password, it can't be used to sign in yet."""
    users = get_user_model()._default_manager
    with registry_change(actor, moves_epoch=False) as change:
        account = users.create_superuser(name, email=email, password=password)
        change.enter(account_draft(Kind.OFFICER_CREATED, account, "a superuser"))
    return account


def set_password(account: Any, password: str, *, actor: Actor) -> None:
    """Set the password of an account, which ends its sessions."""
    with registry_change(actor, moves_epoch=False) as change:
        account.set_password(password)
        account.save(update_fields=["password"])
        change.enter(account_draft(Kind.OFFICER_CHANGED, account, "password"))


def _rights_of_account(account: Any) -> dict[str, Any]:
    """Return the rights of an account as JSON values for the trail."""
    return {
        "active": account.is_active,
        "staff": account.is_staff,
        "superuser": account.is_superuser,
        "groups": sorted(account.groups.values_list("name", flat=True)),
        "permissions": _names(account.user_permissions),
    }


def _rights_of_group(group: Group) -> dict[str, Any]:
    """Return the rights of a group's members as JSON values for the trail."""
    return {"permissions": _names(group.permissions)}


def _draft(kind: Kind, subject: str, change: Any, rights: dict[str, Any]) -> EntryDraft:
    body = {"change": change, "after": rights}
    return EntryDraft(kind, subject=subject[:SUBJECT_MAX_CHARS], shared=body)


def _names(permissions: Any) -> list[str]:
    return sorted(permissions.values_list("codename", flat=True))

"""The rights of accounts and groups, and the accounts and groups that a person may change.

A person can't grant a right that they lack. A person can't change an account or a group with more
rights than their own either: with its password they would have those rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser, Group, Permission
from django.db.models import Q, QuerySet

from registry.officers.groups import AUDITORS, OFFICERS, SCOPED_AUDITORS

HUBS_OWN = frozenset({OFFICERS, AUDITORS, SCOPED_AUDITORS})  # each start sets their rights


@dataclass(frozen=True, slots=True)
class Rights:
    """Permissions by primary key. `everything` is a superuser's: all present and future ones."""

    everything: bool
    permissions: frozenset[int]

    def cover(self, other: Rights) -> bool:
        """Return whether a person with these rights may grant or remove the `other` ones."""
        if self.everything:
            return True
        return not other.everything and other.permissions <= self.permissions


def rights_of(account: Any) -> Rights:
    """Return the rights of an account, those of an inactive account too; without one, no rights."""
    if not isinstance(account, AbstractUser):
        return Rights(False, frozenset())
    held = Q(user=account.pk) | Q(group__user=account.pk)
    permissions = Permission.objects.filter(held).values_list("pk", flat=True)
    return Rights(account.is_superuser, frozenset(permissions))


def may_touch_account(person: Any, account: Any) -> bool:
    """Return whether `person` may change the account, set its password or delete it."""
    return rights_of(person).cover(rights_of(account))


def may_touch_group(person: Any, group: Group) -> bool:
    """Return whether `person` may change or delete the group and so the rights of its members.

    The hub's own groups can't be changed: the next start would undo the change silently.
    """
    if group.name in HUBS_OWN:
        return False
    rights = rights_of(person)
    permissions = frozenset(group.permissions.values_list("pk", flat=True))
    # By primary key: the next filter of `group.user_set` would look at this one group only.
    members = get_user_model()._default_manager.filter(pk__in=group.user_set.values("pk"))
    return rights.cover(Rights(False, permissions)) and not _beyond(members, rights).exists()


def permissions_within(person: Any) -> QuerySet[Permission]:
    """Return the permissions that `person` may grant."""
    rights = rights_of(person)
    rows = Permission.objects.all()
    return rows if rights.everything else rows.filter(pk__in=rights.permissions)


def groups_within(person: Any) -> QuerySet[Group]:
    """Return the groups that `person` may grant: those without more rights than their own."""
    rights = rights_of(person)
    rows = Group.objects.all()
    if rights.everything:
        return rows
    beyond = Permission.objects.exclude(pk__in=rights.permissions)
    return rows.exclude(permissions__in=beyond)


def _beyond(accounts: QuerySet[Any], rights: Rights) -> QuerySet[Any]:
    """Return the accounts with at least one right that `rights` do not cover."""
    if rights.everything:
        return accounts.none()
    beyond = Permission.objects.exclude(pk__in=rights.permissions)
    return accounts.filter(
        Q(is_superuser=True) | Q(user_permissions__in=beyond) | Q(groups__permissions__in=beyond)
    )

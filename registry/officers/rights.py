"""What an account or a group may do, and whom that lets it touch.

Nobody grants what they lack, and nobody touches an account or a group that may do more than they
may: its password is its rights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AbstractUser, Group, Permission
from django.db.models import Q, QuerySet

from registry.officers.groups import AUDITORS, OFFICERS

HUBS_OWN = frozenset({OFFICERS, AUDITORS})  # each start sets them anew


@dataclass(frozen=True, slots=True)
class Rights:
    """Permissions by primary key; a superuser has `everything`, those of tomorrow included."""

    everything: bool
    permissions: frozenset[int]

    def cover(self, other: Rights) -> bool:
        """Whether whoever has these rights may give, take or use the other ones."""
        if self.everything:
            return True
        return not other.everything and other.permissions <= self.permissions


def rights_of(account: Any) -> Rights:
    """What an account may, or may again as soon as somebody activates it; nobody may nothing."""
    if not isinstance(account, AbstractUser):
        return Rights(False, frozenset())
    held = Q(user=account.pk) | Q(group__user=account.pk)
    permissions = Permission.objects.filter(held).values_list("pk", flat=True)
    return Rights(account.is_superuser, frozenset(permissions))


def may_touch_account(person: Any, account: Any) -> bool:
    """Whether `person` may change the account, set its password or delete it."""
    return rights_of(person).cover(rights_of(account))


def may_touch_group(person: Any, group: Group) -> bool:
    """Whether `person` may change or delete the group, which changes what its members may.

    The hub's own groups are changed by nobody: the next start would undo it without a word.
    """
    if group.name in HUBS_OWN:
        return False
    rights = rights_of(person)
    permissions = frozenset(group.permissions.values_list("pk", flat=True))
    members = group.user_set.all()
    return rights.cover(Rights(False, permissions)) and not _beyond(members, rights).exists()


def permissions_within(person: Any) -> QuerySet[Permission]:
    """The permissions that `person` may give away."""
    rights = rights_of(person)
    rows = Permission.objects.all()
    return rows if rights.everything else rows.filter(pk__in=rights.permissions)


def groups_within(person: Any) -> QuerySet[Group]:
    """The groups in which `person` may put somebody: those that may nothing beyond them."""
    rights = rights_of(person)
    rows = Group.objects.all()
    if rights.everything:
        return rows
    beyond = Permission.objects.exclude(pk__in=rights.permissions)
    return rows.exclude(permissions__in=beyond)


def _beyond(accounts: QuerySet[Any], rights: Rights) -> QuerySet[Any]:
    """Those of the accounts that may something which `rights` don't cover."""
    if rights.everything:
        return accounts.none()
    beyond = Permission.objects.exclude(pk__in=rights.permissions)
    return accounts.filter(
        Q(is_superuser=True) | Q(user_permissions__in=beyond) | Q(groups__permissions__in=beyond)
    )

"""What entries say about an account, a group or an API token: never a name, a password or a token.

Each is the `before` and `after` of an entry (`registry/officers/watching.py`).
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import AbstractUser, Group

from atp.wire.timestamps import format_microseconds
from registry.officers.actor import pseudonym, pseudonym_of
from registry.officers.models import ApiToken

State = dict[str, Any]

# Columns whose values are nobody's business: an entry says only that they changed.
UNSAID = ("username", "email", "first_name", "last_name", "token_hash", "user_id")


def family_of(row: Any) -> str:
    """Return the first part of the kinds of entries about such a row."""
    if isinstance(row, AbstractUser):
        return "officer"
    return "group" if isinstance(row, Group) else "token"


def subject_of(row: Any) -> str:
    """Return the subject of entries about the row: a pseudonym, or the number of a group."""
    if isinstance(row, AbstractUser):
        return pseudonym_of(row)
    return f"group:{row.pk}" if isinstance(row, Group) else pseudonym(row.user_id)


def state_of(row: Any) -> State:
    """Return the row's rights and settings as JSON values."""
    match row:
        case AbstractUser():
            return _state_of_account(row)
        case Group():
            return {"name": row.name, "permissions": _names(row.permissions)}
        case ApiToken():
            return _state_of_token(row)
    raise TypeError(f"{type(row).__name__} rows are not watched")


def members_of(row: Any) -> State:
    """Return the people who lose the rights of a group that is deleted."""
    if not isinstance(row, Group):
        return {}
    accounts = row.user_set.select_related("person")
    return {"members": sorted(pseudonym_of(account) for account in accounts)}


def _state_of_account(account: AbstractUser) -> State:
    return {
        "active": account.is_active,
        "staff": account.is_staff,
        "superuser": account.is_superuser,
        "password": "set" if account.has_usable_password() else "none",
        "groups": sorted(account.groups.values_list("name", flat=True)),
        "permissions": _names(account.user_permissions),
    }


def _state_of_token(token: ApiToken) -> State:
    revoked = token.revoked_at
    return {
        "token": token.pk,
        "name": token.name,
        "expiresAt": format_microseconds(token.expires_at),
        "revokedAt": format_microseconds(revoked) if revoked else None,
    }


def _names(permissions: Any) -> list[str]:
    return sorted(permissions.values_list("codename", flat=True))

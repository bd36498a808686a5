"""Actors: who did something, as the trail names them. People appear by pseudonym.

See docs/design/provenance.md#entry.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.contrib.auth import get_user_model

from registry.hub.secrets import PSEUDONYMS

PSEUDONYM_HEX_CHARS = 12
_DOMAIN = b"atp officer pseudonym\0"


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change. Entries hold `name`.

    `user_id` is the officer's account; it is `None` for the hub, an operator or an agent.
    """

    name: str
    user_id: int | None = None

    @classmethod
    def of_user(cls, user: Any) -> Actor:
        """Return the officer who is signed in as `user`."""
        return cls(name=pseudonym(user.pk), user_id=user.pk)

    @classmethod
    def hub(cls) -> Actor:
        """Return the hub itself, for changes by its schedule or its rules."""
        return cls(name="hub")

    @classmethod
    def operator(cls) -> Actor:
        """Return the operator, who runs commands on the hub's machine without an account."""
        return cls(name="operator")

    @classmethod
    def agent(cls, agent_id: str) -> Actor:
        """Return the agent, named `agent:<id>`."""
        return cls(name=f"agent:{agent_id}")


def pseudonym(user_id: int) -> str:
    """Return the name under which a person appears in the trail.

    To find the person, one needs the hub's secret and the list of accounts. Rotating keys does not
    change a pseudonym.
    """
    digest = hmac.new(PSEUDONYMS.get(), _DOMAIN + str(user_id).encode(), sha256)
    return f"officer:{digest.hexdigest()[:PSEUDONYM_HEX_CHARS]}"


def officer_names() -> Mapping[str, str]:
    """Return by pseudonym the names of all accounts, of former officers too; one query.

    Show them only to users for whom `may_see_names` is true.
    """
    users = get_user_model()._default_manager.all()
    return {pseudonym(user.pk): user.get_username() for user in users}


def may_see_names(user: Any) -> bool:
    """Return whether `user` may see the names beside pseudonyms: officers and auditors may."""
    return bool(user.has_perm("registry.view_officer_names") or user.has_perm("auth.view_user"))

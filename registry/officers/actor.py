"""Who did something, as the trail names it: people stand there by pseudonym.

See docs/design/provenance.md#entry.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.contrib.auth import get_user_model

from registry.hub.pseudonyms import pseudonym_key

PSEUDONYM_HEX_CHARS = 12
_DOMAIN = b"atp officer pseudonym\0"


@dataclass(frozen=True, slots=True)
class Actor:
    """`name` goes into entries; `user_id` is the officer's account, `None` for hub and agents."""

    name: str
    user_id: int | None = None

    @classmethod
    def of_user(cls, user: Any) -> Actor:
        """The officer who is logged in as `user`."""
        return cls(name=pseudonym(user.pk), user_id=user.pk)

    @classmethod
    def hub(cls) -> Actor:
        """The hub itself, by its own schedule or rules."""
        return cls(name="hub")

    @classmethod
    def operator(cls) -> Actor:
        """Whoever types commands on the hub's own machine."""
        return cls(name="operator")

    @classmethod
    def agent(cls, agent_id: str) -> Actor:
        return cls(name=f"agent:{agent_id}")


def pseudonym(user_id: int) -> str:
    """The name under which a person appears in the trail.

    It can't be turned back without the hub's secret and the list of accounts, so deleting the
    account makes the entries anonymous; it stays the same whatever keys are rotated.
    """
    digest = hmac.new(pseudonym_key(), _DOMAIN + str(user_id).encode(), sha256)
    return f"officer:{digest.hexdigest()[:PSEUDONYM_HEX_CHARS]}"


def officer_names() -> Mapping[str, str]:
    """Pseudonym to account name, for those who may know; one query."""
    users = get_user_model()._default_manager.filter(is_staff=True)
    return {pseudonym(user.pk): user.get_username() for user in users}

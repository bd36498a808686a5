"""Actors: who did something, as the trail names them. People appear by pseudonym.

See docs/design/provenance.md#entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.officers.models import Person


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
        return cls(name=pseudonym_of(user), user_id=user.pk)

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


def pseudonym_of(account: Any) -> str:
    """Return the pseudonym of an account; an account object reads it once."""
    try:
        person: Person = account.person
    except Person.DoesNotExist:
        person = account.person = _person(account_id=account.pk)
    return person.pseudonym


def pseudonym(user_id: int) -> str:
    """Return the name under which a person appears in the trail; one query.

    It is random and stored with the account. Rotating keys does not change it.
    """
    return _person(account_id=user_id).pseudonym


def may_see_names(user: Any) -> bool:
    """Return whether `user` may look up the names of pseudonyms: officers and auditors may."""
    return bool(user.has_perm("registry.view_officer_names") or user.has_perm("auth.view_user"))


def _person(account_id: int) -> Person:
    """Return the person of an account.

    An account gets its pseudonym when it is made (`registry/officers/watching.py`). One that was
    made past Django's signals, such as by `bulk_create`, gets it here.
    """
    person, _ = Person.objects.get_or_create(account_id=account_id)
    return person

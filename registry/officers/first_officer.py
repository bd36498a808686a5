"""Makes the first account of a new hub. With it a person makes all other accounts."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from django.contrib.auth import get_user_model

from registry.change import registry_change
from registry.officers.actor import Actor, pseudonym
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

FIRST_OFFICER = "officer"
PASSWORD_BYTES = 15  # of entropy, shown as 20 characters


@dataclass(frozen=True, slots=True)
class FirstOfficer:
    """The new account's name, and its password in clear, which is stored only as a hash."""

    name: str
    password: str = field(repr=False)


def make_first_officer() -> FirstOfficer | None:
    """Make a superuser with a random password; return `None` if a staff account exists already."""
    users = get_user_model()._default_manager
    officer = FirstOfficer(FIRST_OFFICER, secrets.token_urlsafe(PASSWORD_BYTES))
    with registry_change(Actor.hub(), moves_epoch=False) as change:
        if users.filter(is_staff=True).exists():
            return None
        account = users.create_superuser(officer.name, password=officer.password)
        change.enter(
            EntryDraft(
                kind=Kind.OFFICER_CREATED,
                actor=Actor.hub().name,
                subject=pseudonym(account.pk),
                shared={"reason": "the hub's first start", "superuser": True},
            )
        )
    return officer

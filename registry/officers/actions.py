"""Every write to API tokens, and to the forms that officers have sent."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from atp.errors import MalformedDocument
from registry.change import registry_change
from registry.officers.actor import Actor, pseudonym
from registry.officers.models import ApiToken, SentForm
from registry.plain_text import check_text
from registry.token_hash import hash_token
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

TOKEN_BYTES = 32
NAME_MAX_CHARS = 80  # of the column
LONGEST_DAYS = 366
FORM_LIFE = timedelta(days=1)  # then a form of the officers' pages has to be opened again


@dataclass(frozen=True, slots=True)
class IssuedApiToken:
    """A new token with its text in clear. The database stores only the hash of `text`."""

    row: ApiToken
    text: str = field(repr=False)


def issue_api_token(user: Any, name: str, *, days: int) -> IssuedApiToken:
    """Issue a token with which a program of `user` has the rights of `user`, for `days` days.

    `user` is the one who issues it: no person can hold a token in another person's name.
    """
    actor = Actor.of_user(user)
    name = check_text(name, "name")
    if not 1 <= len(name) <= NAME_MAX_CHARS:
        raise MalformedDocument(
            f"say what it is for, in at most {NAME_MAX_CHARS} characters", field="name"
        )
    if not 1 <= days <= LONGEST_DAYS:
        raise MalformedDocument(f"a token is good for 1 to {LONGEST_DAYS} days", field="days")
    text = secrets.token_urlsafe(TOKEN_BYTES)
    with registry_change(actor, moves_epoch=False) as change:
        row = ApiToken.objects.create(
            token_hash=hash_token(text),
            user=user,
            name=name,
            expires_at=datetime.now(UTC) + timedelta(days=days),
        )
        change.enter(_draft(row, actor, "issued"))
    return IssuedApiToken(row, text)


def revoke_api_token(token_id: int, *, actor: Actor) -> None:
    """Revoke a token at once; do nothing if it is revoked already."""
    with registry_change(actor, moves_epoch=False) as change:
        row = ApiToken.objects.select_for_update(of=("self",)).get(pk=token_id)
        if row.revoked_at is None:
            row.revoked_at = datetime.now(UTC)
            row.save(update_fields=["revoked_at"])
            change.enter(_draft(row, actor, "revoked"))


def take_form(nonce: str) -> bool:
    """Note that the form with this number was sent; return whether it was the first time.

    Call it inside a `registry_change` that moves the epoch: its lock puts two senders in order.
    """
    SentForm.objects.filter(sent_at__lt=datetime.now(UTC) - 2 * FORM_LIFE).delete()
    _, first = SentForm.objects.get_or_create(pk=nonce)
    return first


def _draft(row: ApiToken, actor: Actor, event: str) -> EntryDraft:
    return EntryDraft(
        kind=Kind.OFFICER_CHANGED,
        actor=actor.name,
        subject=pseudonym(row.user_id),
        shared={
            "apiToken": row.pk,
            "event": event,
            "name": row.name,
            "expiresAt": row.expires_at.isoformat(),
        },
    )

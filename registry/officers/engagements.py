"""Engagements: an auditor's account for a period and a scope, set up without its password.

Whoever sets it up gets a link, and gives it to the auditor. The auditor sets the password there.
The link works once and for 72 hours. When the period is over, sign-in, sessions and tokens of the
account are refused (`registry/officers/backend.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError

from atp.errors import MalformedDocument
from registry.change import registry_change
from registry.officers.actor import Actor, pseudonym_of
from registry.officers.groups import AUDITORS, SCOPED_AUDITORS
from registry.officers.models import Engagement
from registry.officers.reason import check_reason
from registry.token_hash import hash_token
from registry.trail.actions import MOST_ORGANISATIONS, EntryDraft
from registry.trail.kinds import Kind

LINK_BYTES = 32
LINK_LIFE = timedelta(hours=72)
LONGEST = timedelta(days=3 * 366)


@dataclass(frozen=True, slots=True)
class Begun:
    """A new engagement, and the secret of its link, which is stored only as a hash."""

    row: Engagement
    secret: str = field(repr=False)


def begin_engagement(
    name: str,
    *,
    organisations: Iterable[str],
    everything: bool,
    begins_at: datetime,
    ends_at: datetime,
    actor: Actor,
) -> Begun:
    """Make an auditor's account named `name`; `organisations` are uids.

    Raises `MalformedDocument` if the name is taken or malformed, if the period is over, ends before
    it begins or is too long, or if the scope is neither everything nor at least one organisation.
    """
    uids = sorted(set(organisations))
    _check_scope(uids, everything=everything)
    _check_period(begins_at, ends_at)
    account = _unsaved(name)
    secret = secrets.token_urlsafe(LINK_BYTES)
    with registry_change(actor, moves_epoch=False) as change:
        account.set_unusable_password()
        account.save()
        account.groups.set([_group(AUDITORS if everything else SCOPED_AUDITORS)])
        row = Engagement.objects.create(
            account=account,
            everything=everything,
            organisations=uids,
            begins_at=begins_at,
            ends_at=ends_at,
            link_hash=hash_token(secret),
            link_expires_at=datetime.now(UTC) + LINK_LIFE,
        )
        change.enter(_draft(Kind.ENGAGEMENT_BEGUN, row))
    return Begun(row, secret)


def engagement_of_link(secret: str) -> Engagement | None:
    """Return the engagement whose link this is; `None` if the link is used, expired or unknown."""
    now = datetime.now(UTC)
    rows = Engagement.objects.select_related("account").filter(
        link_hash=hash_token(secret), link_used_at=None, link_expires_at__gt=now, ended_at=None
    )
    return rows.filter(ends_at__gt=now, account__is_active=True).first()


def use_link(secret: str, password: str) -> Any:
    """Set the password of the account of this link; return the account, `None` if it is too late.

    Check the password's rules before.
    """
    found = engagement_of_link(secret)
    if found is None:
        return None
    account = found.account
    with registry_change(Actor.of_user(account), moves_epoch=False) as change:
        unused = Engagement.objects.select_for_update().filter(pk=found.pk, link_used_at=None)
        if not unused.update(link_used_at=datetime.now(UTC)):
            return None
        account.set_password(password)
        account.save(update_fields=["password"])
        change.enter(_draft(Kind.ENGAGEMENT_OPENED, found))
    return account


def end_engagement(engagement_id: int, *, actor: Actor, reason: str) -> None:
    """End an engagement at once; do nothing if it was ended before."""
    reason = check_reason(reason)
    with registry_change(actor, moves_epoch=False) as change:
        row = Engagement.objects.select_for_update(of=("self",)).get(pk=engagement_id)
        if row.ended_at is None:
            row.ended_at = datetime.now(UTC)
            row.save(update_fields=["ended_at"])
            change.enter(_draft(Kind.ENGAGEMENT_ENDED, row, reason=reason))


def _check_scope(uids: list[str], *, everything: bool) -> None:
    if everything == bool(uids):
        raise MalformedDocument("choose either everything or some organisations")
    if len(uids) > MOST_ORGANISATIONS:
        raise MalformedDocument(f"choose at most {MOST_ORGANISATIONS} organisations")


def _check_period(begins_at: datetime, ends_at: datetime) -> None:
    if ends_at <= max(begins_at, datetime.now(UTC)):
        raise MalformedDocument("the period is over, or ends before it begins", field="ends_at")
    if ends_at - begins_at > LONGEST:
        raise MalformedDocument(f"a period has at most {LONGEST.days} days", field="ends_at")


def _unsaved(name: str) -> Any:
    account = get_user_model()(username=name, is_staff=True)
    try:
        account.full_clean(exclude=["password"])
    except ValidationError as exc:
        raise MalformedDocument(" ".join(exc.messages), field="name") from exc
    return account


def _group(name: str) -> Group:
    return Group.objects.get(name=name)


def _draft(kind: Kind, row: Engagement, **more: Any) -> EntryDraft:
    said = {
        "everything": row.everything,
        "organisations": row.organisations,
        "beginsAt": row.begins_at.astimezone(UTC).isoformat(),
        "endsAt": row.ends_at.astimezone(UTC).isoformat(),
        **more,
    }
    organisations = tuple(row.organisations)
    subject = pseudonym_of(row.account)
    return EntryDraft(kind, subject=subject, organisations=organisations, shared=said)

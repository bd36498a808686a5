"""Who is behind a pseudonym: each lookup is entered, and a person can be erased.

Erasing forgets name, e-mail address and the link between account and pseudonym. The entries stand.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.contenttypes.models import ContentType

from atp.errors import MalformedDocument
from registry.change import registry_change
from registry.officers.actor import Actor, pseudonym_of
from registry.officers.models import ApiToken, ErasedPerson, Person
from registry.officers.readings import opened_lately
from registry.officers.reason import check_reason
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind
from registry.trail.models import Entry

ERASED = "erased person"
NAME_BYTES = 6  # of the random name that the account keeps


def name_of(pseudonym: str) -> str | None:
    """Return the name of the person, `ERASED` if it is forgotten, `None` if there is none.

    Enter the lookup first (`registry.officers.readings`).
    """
    people = Person.objects.filter(pseudonym=pseudonym)
    name = people.values_list("account__username", flat=True).first()
    if name is None and ErasedPerson.objects.filter(pseudonym=pseudonym).exists():
        return ERASED
    return name


def names_shown_to(user: Any, pseudonyms: Collection[str]) -> dict[str, str]:
    """Return, of these pseudonyms, the names that `user` may see without another entry.

    These are the user's own, those looked up in this window of time, and erased people.
    """
    lately = {pseudonym_of(user), *opened_lately(user, Kind.PERSON_NAMED)} & {*pseudonyms}
    people = Person.objects.filter(pseudonym__in=lately)
    erased = ErasedPerson.objects.filter(pseudonym__in=pseudonyms)
    return {
        **dict(people.values_list("pseudonym", "account__username")),
        **dict.fromkeys(erased.values_list("pseudonym", flat=True), ERASED),
    }


def kept_until(person: Person) -> datetime:
    """Return until when a person can't be erased: a time after the last thing that they did."""
    acted = Entry.objects.filter(actor=person.pseudonym).order_by("-position")
    last = acted.values_list("time", flat=True).first() or datetime.min.replace(tzinfo=UTC)
    return last + timedelta(days=settings.ATP_PERSON_KEPT_DAYS)


def erase_person(account_id: int, *, actor: Actor, reason: str) -> str:
    """Forget name, address and link of a deactivated account; return the pseudonym.

    Raises `MalformedDocument` if the account is active, was erased already, or is still kept.
    """
    reason = check_reason(reason)
    with registry_change(actor, moves_epoch=False) as change:
        people = Person.objects.select_for_update(of=("self",)).select_related("account")
        person = people.filter(pk=account_id).first()
        _check_erasable(person)
        assert person is not None
        _forget_account(account_id)
        pseudonym = person.pseudonym
        ErasedPerson.objects.create(pseudonym=pseudonym)
        person.delete()
        change.enter(EntryDraft(Kind.PERSON_ERASED, subject=pseudonym, shared={"reason": reason}))
    return pseudonym


def _check_erasable(person: Person | None) -> None:
    if person is None:
        raise MalformedDocument("there is no such person, or it is erased already")
    if person.account.is_active:
        raise MalformedDocument("deactivate the account first")
    until = kept_until(person)
    if until > datetime.now(UTC):
        raise MalformedDocument(f"what this person did is kept until {until:%Y-%m-%d}")


def _forget_account(account_id: int) -> None:
    """Put random words in the place of all that tells whose the account was.

    These writes send no signals: entries about them would need the pseudonym.
    """
    get_user_model()._default_manager.filter(pk=account_id).update(
        username=f"erased-{secrets.token_hex(NAME_BYTES)}",
        first_name="",
        last_name="",
        email="",
        password=make_password(None),
        last_login=None,
    )
    tokens = ApiToken.objects.filter(user=account_id)
    tokens.filter(revoked_at=None).update(revoked_at=datetime.now(UTC))
    tokens.update(name="erased")
    accounts = ContentType.objects.get_for_model(get_user_model())
    LogEntry.objects.filter(content_type=accounts, object_id=str(account_id)).delete()

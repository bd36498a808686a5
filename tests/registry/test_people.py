"""Who is behind a pseudonym: lookups are entered, and a person can be erased."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.management import CommandError, call_command
from django.test import Client

from registry.officers.actions import issue_api_token
from registry.officers.actor import Actor, pseudonym
from registry.officers.groups import AUDITORS
from registry.officers.models import ApiToken, Person
from registry.officers.people import ERASED, name_of
from registry.trail.models import Entry
from tests.registry.admin_cast import Browser, officer_client, text_of
from tests.registry.agent_cast import fresh
from tests.trail.readers import add, note, person

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def olive(database: None) -> User:
    return User.objects.create_user(fresh("olive"), email="olive@example.org", is_staff=True)


@pytest.fixture
def auditor(database: None) -> User:
    user: User = person(AUDITORS)
    user.is_staff = True
    user.save()
    return user


def browser_of(user: User) -> Client:
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def deactivate(user: User) -> None:
    user.is_active = False
    user.save()


def lookups(user: User) -> list[str]:
    rows = Entry.objects.filter(actor=pseudonym(user.pk), kind="person.named")
    return list(rows.order_by("position").values_list("subject", flat=True))


def test_it_enters_each_lookup_of_a_name(olive: User, auditor: User) -> None:
    who, browser = pseudonym(olive.pk), browser_of(auditor)
    position = add(note(actor=who))
    page = f"/admin/registry/entry/{position}/change/"
    before = text_of(browser.get(page))
    assert olive.username not in before
    assert f"/admin/registry/entry/who/{who}/" in before
    assert not lookups(auditor)
    assert olive.username in text_of(browser.get(f"/admin/registry/entry/who/{who}/"))
    assert lookups(auditor) == [who]
    for path in (page, f"/admin/registry/entry/?q={position}"):
        assert olive.username in text_of(browser.get(path))


def test_rejects_a_lookup_of_nobody_and_by_those_who_may_not(olive: User, auditor: User) -> None:
    assert browser_of(auditor).get("/admin/registry/entry/who/officer:00/").status_code == 404
    stranger = officer_client(superuser=False, permissions=("view_entry",))
    path = f"/admin/registry/entry/who/{pseudonym(olive.pk)}/"
    assert stranger.get(path).status_code == 403
    assert not lookups(auditor)


def erase(client: Client, user: User, **values: str) -> Any:
    return client.post(f"/admin/registry/person/{user.pk}/erase/", {"reason": "asked", **values})


def test_it_erases_a_person_and_keeps_the_entries(
    olive: User, auditor: User, settings: Any
) -> None:
    who, name = pseudonym(olive.pk), olive.username
    position = add(note(actor=who))
    issue_api_token(olive, "Olive's feed", days=1)
    about = ContentType.objects.get_for_model(User)
    LogEntry.objects.create(
        user_id=auditor.pk, content_type=about, object_id=str(olive.pk), object_repr=name,
        action_flag=CHANGE,
    )  # fmt: skip
    deactivate(olive)
    settings.ATP_PERSON_KEPT_DAYS = 0
    boss = officer_client()
    assert name in text_of(boss.get("/admin/registry/person/"))
    assert erase(boss, olive).status_code == 302
    olive.refresh_from_db()
    assert (olive.email, olive.has_usable_password(), name in olive.username) == ("", False, False)
    assert not Person.objects.filter(pseudonym=who).exists()
    assert not LogEntry.objects.filter(content_type=about, object_id=olive.pk).exists()
    token = ApiToken.objects.get(user=olive)
    assert token.revoked_at is not None
    assert "Olive" not in token.name
    assert name_of(who) == ERASED
    (entry,) = Entry.objects.filter(kind="person.erased", subject=who)
    assert entry.body.read()["reason"] == "asked"
    shown = text_of(browser_of(auditor).get(f"/admin/registry/entry/{position}/change/"))
    assert f"{who} (erased person)" in shown
    assert Actor.of_user(User.objects.get(pk=olive.pk)).name != who


def test_rejects_erasing_an_active_account_and_what_is_still_kept(olive: User) -> None:
    add(note(actor=pseudonym(olive.pk)))
    boss = officer_client()
    assert erase(boss, olive).status_code == 404  # the list has deactivated accounts only
    with pytest.raises(CommandError, match="deactivate the account first"):
        call_command("erase_person", olive.username, reason="asked", yes=True)
    deactivate(olive)
    assert "is kept until" in text_of(erase(boss, olive))
    assert name_of(pseudonym(olive.pk)) == olive.username


def test_it_erases_a_person_by_the_command_after_a_yes(olive: User, settings: Any) -> None:
    who, name = pseudonym(olive.pk), olive.username
    deactivate(olive)
    settings.ATP_PERSON_KEPT_DAYS = 0
    with pytest.raises(CommandError, match="--yes"):
        call_command("erase_person", name, reason="asked")
    call_command("erase_person", name, reason="asked", yes=True)
    assert name_of(who) == ERASED
    (entry,) = Entry.objects.filter(kind="person.erased", subject=who)
    assert entry.actor == "operator"


def test_rejects_erasing_by_those_who_do_not_manage_accounts(olive: User, auditor: User) -> None:
    deactivate(olive)
    client = browser_of(auditor)
    assert client.get("/admin/registry/person/").status_code == 403
    assert erase(client, olive).status_code in {403, 404}
    assert name_of(pseudonym(olive.pk)) == olive.username

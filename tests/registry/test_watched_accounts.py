"""Accounts, groups, passwords and tokens are entered wherever they are changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, Permission
from django.core import serializers
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from registry.change import registry_change
from registry.officers.actions import issue_api_token, revoke_api_token
from registry.officers.actor import Actor, pseudonym
from registry.officers.models import ApiToken, Person
from registry.trail.models import Entry
from tests.registry.agent_cast import fresh

pytestmark = pytest.mark.usefixtures("database")
PASSWORD = "a long enough password"


def account(**values: Any) -> Any:
    return get_user_model()._default_manager.create_user(fresh("ann"), **values)


def entered(subject: str) -> list[tuple[str, dict[str, Any]]]:
    """Return kind and body of the entries about a subject, oldest first."""
    rows = Entry.objects.filter(subject=subject).select_related("body").order_by("position")
    return [(row.kind, row.body.read()) for row in rows]


def of(user: Any) -> list[tuple[str, dict[str, Any]]]:
    return entered(pseudonym(user.pk))


def last_of(user: Any) -> tuple[str, dict[str, Any]]:
    return of(user)[-1]


def permission(codename: str = "view_entry") -> Permission:
    return Permission.objects.get(codename=codename)


def test_it_gives_each_account_a_random_pseudonym_when_it_is_made() -> None:
    first, second = account(), account()
    people = Person.objects.filter(account__in=[first, second])
    names = {person.pseudonym for person in people}
    assert len(names) == 2
    assert all(len(bytes.fromhex(name.removeprefix("officer:"))) == 12 for name in names)


def test_it_gives_an_account_that_sent_no_signal_its_pseudonym_at_first_use() -> None:
    (row,) = get_user_model()._default_manager.bulk_create([get_user_model()(username=fresh("b"))])
    assert Actor.of_user(row).name == pseudonym(row.pk) == row.person.pseudonym


def test_it_enters_an_account_made_in_the_shell_by_the_operator() -> None:
    user = account(email="ann@example.org", password=PASSWORD, is_staff=True)
    ((kind, body),) = of(user)
    assert kind == "officer.created"
    assert (body["after"]["staff"], body["after"]["password"]) == (True, "set")
    entry = Entry.objects.select_related("body").get(subject=pseudonym(user.pk))
    assert entry.actor == "operator"
    written = bytes(entry.leaf) + entry.body.content()
    for secret in (user.username, user.email, user.password, PASSWORD):
        assert secret.encode() not in written


def test_it_enters_changed_rights_with_those_before_and_after() -> None:
    user = account()
    user.is_superuser = True
    user.save()
    kind, body = last_of(user)
    assert kind == "officer.changed"
    assert (body["before"]["superuser"], body["after"]["superuser"]) == (False, True)


def test_it_enters_that_a_name_changed_without_the_name() -> None:
    user = account()
    user.email = "somebody@example.org"
    user.save(update_fields=["email"])
    kind, body = last_of(user)
    assert (kind, body["alsoChanged"]) == ("officer.changed", ["email"])
    assert "somebody@example.org" not in json.dumps(body)


def test_it_enters_no_sign_in_and_no_save_that_changes_nothing() -> None:
    user = account()
    before = of(user)
    user.last_login = timezone.now()
    user.save(update_fields=["last_login"])
    user.save()
    assert of(user) == before


def test_it_enters_a_password_set_in_any_way() -> None:
    user = account()
    user.set_password(PASSWORD)
    user.save()
    kind, body = last_of(user)
    assert (kind, body["before"], body["after"]) == (
        "officer.password_changed",
        {"password": "none"},
        {"password": "set"},
    )
    user.password = make_password("another long password")
    user.save(update_fields=["password"])
    assert [kind for kind, _ in of(user)].count("officer.password_changed") == 2
    assert user.password not in json.dumps(of(user))


def test_it_enters_no_password_that_is_only_hashed_anew() -> None:
    """Django does so at a sign-in when hashing has become more expensive."""
    user = account(password=PASSWORD)
    algorithm, iterations, salt, _ = user.password.split("$")
    weak = make_password(PASSWORD, salt=salt).split("$")
    assert (weak[0], weak[1]) == (algorithm, iterations)
    from django.contrib.auth.hashers import PBKDF2PasswordHasher

    old = PBKDF2PasswordHasher().encode(PASSWORD, salt, iterations=1000)
    get_user_model()._default_manager.filter(pk=user.pk).update(password=old)
    user.refresh_from_db()
    before = of(user)
    assert user.check_password(PASSWORD)
    user.refresh_from_db()
    assert user.password != old
    assert of(user) == before


@pytest.mark.parametrize("side", ["account", "group"])
def test_it_enters_a_group_given_and_taken_from_either_side(side: str) -> None:
    user, group = account(), Group.objects.create(name=fresh("role"))
    pair: tuple[Any, Any] = (user.groups, group) if side == "account" else (group.user_set, user)
    relation, other = pair
    relation.add(other)
    kind, body = last_of(user)
    assert kind == "officer.changed"
    assert (body["before"]["groups"], body["after"]["groups"]) == ([], [group.name])
    relation.clear()
    kind, body = last_of(user)
    assert (body["before"]["groups"], body["after"]["groups"]) == ([group.name], [])


def test_it_enters_permissions_of_accounts_and_groups() -> None:
    user, group = account(), Group.objects.create(name=fresh("role"))
    user.user_permissions.add(permission())
    assert last_of(user)[1]["after"]["permissions"] == ["view_entry"]
    group.permissions.set([permission()])
    kind, body = entered(f"group:{group.pk}")[-1]
    assert (kind, body["before"]["permissions"]) == ("group.changed", [])
    assert body["after"]["permissions"] == ["view_entry"]
    permission().group_set.remove(group)
    assert entered(f"group:{group.pk}")[-1][1]["after"]["permissions"] == []


def test_it_enters_a_deleted_group_with_the_people_who_were_in_it() -> None:
    user, group = account(), Group.objects.create(name=fresh("role"))
    user.groups.add(group)
    number = group.pk
    Group.objects.filter(pk=number).delete()
    kinds = [kind for kind, _ in entered(f"group:{number}")]
    assert kinds == ["group.created", "group.deleted"]
    assert entered(f"group:{number}")[-1][1]["before"]["members"] == [pseudonym(user.pk)]


def test_it_enters_tokens_and_never_their_text() -> None:
    user = account()
    issued = issue_api_token(user, "the feed", days=1)
    revoke_api_token(issued.row.pk, actor=Actor.of_user(user))
    other = ApiToken.objects.get(pk=issue_api_token(user, "another", days=1).row.pk)
    other.name = "renamed"
    other.save()
    other.delete()
    kinds = [kind for kind, _ in of(user)]
    assert kinds == [
        "officer.created",
        "token.issued",
        "token.revoked",
        "token.issued",
        "token.changed",
        "token.deleted",
    ]
    said = json.dumps(of(user))
    assert issued.text not in said
    assert issued.row.token_hash not in said


def test_it_enters_that_somebody_puts_another_hash_into_a_token() -> None:
    """Who does so has a token in another person's name, without one that was issued."""
    user = account()
    row = issue_api_token(user, "the feed", days=1).row
    row.token_hash = fresh("hash")
    row.save()
    kind, body = last_of(user)
    assert (kind, body["alsoChanged"]) == ("token.changed", ["token_hash"])


def test_it_enters_what_loaddata_brings(tmp_path: Path) -> None:
    user = account()
    user.is_staff = True
    saved = tmp_path / "accounts.json"
    saved.write_text(serializers.serialize("json", [user]))
    call_command("loaddata", str(saved), verbosity=0)
    kind, body = last_of(user)
    assert (kind, body["after"]["staff"]) == ("officer.changed", True)


def test_it_enters_one_change_of_a_row_once() -> None:
    user, group = account(), Group.objects.create(name=fresh("role"))
    boss = Actor.of_user(account())
    with registry_change(boss, moves_epoch=False):
        user.is_staff = True
        user.save()
        with registry_change(boss, moves_epoch=False):
            user.groups.add(group)
        user.set_password(PASSWORD)
        user.save()
    assert [kind for kind, _ in of(user)] == [
        "officer.created",
        "officer.changed",
        "officer.password_changed",
    ]
    entry = Entry.objects.filter(subject=pseudonym(user.pk)).latest("position")
    assert entry.actor == boss.name
    after = of(user)[1][1]["after"]
    assert (after["staff"], after["groups"]) == (True, [group.name])


def test_it_enters_nothing_that_is_taken_back() -> None:
    user = account()
    before = of(user)
    user.is_staff = True
    with transaction.atomic():
        user.save()
        transaction.set_rollback(True)
    assert of(user) == before

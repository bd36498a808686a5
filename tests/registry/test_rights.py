"""A person can't grant rights they lack, change stronger accounts, or hold another's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.officers.groups import AUDITORS, OFFICERS, ensure_groups
from registry.officers.models import ApiToken
from tests.registry.agent_cast import fresh

pytestmark = pytest.mark.usefixtures("database")

DAYS = {"days": "9"}
PASSWORD = "a password of somebody else"
ACCOUNTS = [f"{verb}_user" for verb in ("add", "change", "delete", "view")]
GROUPS = [f"{verb}_group" for verb in ("add", "change", "delete", "view")]
OTHERS = ["view_agent", "change_agent", "add_apitoken", "change_apitoken", "view_entry"]


@dataclass(frozen=True, slots=True)
class Role:
    """The rights of an account: those of a shipped role, or any mixture."""

    permissions: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    superuser: bool = False
    active: bool = True

    def account(self, name: str) -> Any:
        row = get_user_model()._default_manager.create_user(
            fresh(name), is_staff=True, is_superuser=self.superuser, is_active=self.active
        )
        row.user_permissions.set(permissions(self.permissions))
        row.groups.set(Group.objects.filter(name__in=self.groups))
        return row


SHIPPED = [
    Role(groups=frozenset({OFFICERS})),
    Role(groups=frozenset({AUDITORS})),
    Role(superuser=True),
    Role(),
]
MAKES_ACCOUNTS = Role(frozenset(ACCOUNTS), frozenset({OFFICERS}))
names = st.frozensets(st.sampled_from([*ACCOUNTS, *GROUPS, *OTHERS]), max_size=8)
roles = st.sampled_from([*SHIPPED, MAKES_ACCOUNTS]) | st.builds(
    Role,
    permissions=names,
    groups=st.frozensets(st.sampled_from([OFFICERS, AUDITORS]), max_size=2),
    superuser=st.sampled_from([False, False, False, True]),
    active=st.sampled_from([True, True, False]),
)
# Each example may view accounts and groups; otherwise every answer would be 403.
actors = roles.map(
    lambda role: Role(role.permissions | {"view_user", "view_group"}, role.groups, role.superuser)
)
editors = names.map(lambda some: Role(some | set(ACCOUNTS) | set(GROUPS)))


def permissions(codenames: Any) -> list[Permission]:
    return list(Permission.objects.filter(codename__in=codenames))


def rights_of(account: Any) -> set[str]:
    """Return the rights of an account, active or not, read from its rows by the test itself."""
    row = get_user_model()._default_manager.get(pk=account.pk)
    if row.is_superuser:
        return {"everything", *Permission.objects.values_list("codename", flat=True)}
    rows: list[Any] = [row.user_permissions, *(group.permissions for group in row.groups.all())]
    return {name for each in rows for name in each.values_list("codename", flat=True)}


def browser(account: Any) -> Client:
    client = Client(HTTP_HOST="localhost")
    client.force_login(account)
    return client


@dataclass(frozen=True, slots=True)
class Wish:
    """The changes that a sent form asks for."""

    permissions: frozenset[str]
    groups: frozenset[str]
    superuser: bool

    def of_account(self, account: Any) -> dict[str, Any]:
        boxes = {"is_active": "on", "is_staff": "on"}
        if self.superuser:
            boxes["is_superuser"] = "on"
        return {
            **boxes,
            "username": account.username,
            "groups": [group.pk for group in Group.objects.filter(name__in=self.groups)],
            "user_permissions": [row.pk for row in permissions(self.permissions)],
            "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00:00",
        }

    def of_group(self, name: str) -> dict[str, Any]:
        return {"name": name, "permissions": [row.pk for row in permissions(self.permissions)]}


wishes = st.builds(
    Wish,
    permissions=names,
    groups=st.frozensets(st.sampled_from([OFFICERS, AUDITORS]), max_size=2),
    superuser=st.booleans(),
)
WAYS = (
    "change account", "change oneself", "set password", "delete account", "delete accounts",
    "change group", "change hub's group", "delete group", "delete groups", "add group",
    "issue token",
)  # fmt: skip


def _send(way: str, client: Client, actor: Any, target: Any, group: Group, wish: Wish) -> Any:
    user, role = "/admin/auth/user/", "/admin/auth/group/"
    new = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    chosen = {"action": "delete_selected", "post": "yes"}
    ours = Group.objects.get(name=OFFICERS)
    address, values = {
        "change account": (f"{user}{target.pk}/change/", wish.of_account(target)),
        "change oneself": (f"{user}{actor.pk}/change/", wish.of_account(actor)),
        "set password": (f"{user}{target.pk}/password/", new),
        "delete account": (f"{user}{target.pk}/delete/", {"post": "yes"}),
        "delete accounts": (user, {**chosen, "_selected_action": [target.pk]}),
        "change group": (f"{role}{group.pk}/change/", wish.of_group(group.name)),
        "change hub's group": (f"{role}{ours.pk}/change/", wish.of_group(ours.name)),
        "delete group": (f"{role}{group.pk}/delete/", {"post": "yes"}),
        "delete groups": (role, {**chosen, "_selected_action": [group.pk, ours.pk]}),
        "add group": (f"{role}add/", wish.of_group(fresh("made"))),
        "issue token": ("/admin/registry/apitoken/add/", {"user": target.pk, "name": "x"} | DAYS),
    }[way]  # fmt: skip
    return client.post(address, values)


def _row(account: Any) -> Any:
    rows = get_user_model()._default_manager.filter(pk=account.pk)
    return rows.values("username", "password", "is_active", "is_staff", "is_superuser").first()


@settings(max_examples=50, deadline=None)
@given(way=st.sampled_from(WAYS), actor=actors | editors, target=roles, held=names, wish=wishes)
def test_nobody_grants_what_they_lack_or_touches_those_above_them(
    way: str, actor: Role, target: Role, held: frozenset[str], wish: Wish
) -> None:
    ensure_groups()
    group = Group.objects.create(name=fresh("role"))
    group.permissions.set(permissions(held))
    person, other = actor.account("ann"), target.account("tom")
    other.groups.add(group)
    before, mine = rights_of(other), rights_of(person)
    above = not before <= mine
    ours = {g.name: set(g.permissions.all()) for g in Group.objects.filter(name__in=[OFFICERS])}
    row = _row(other)

    answer = _send(way, browser(person), person, other, group, wish)
    assert answer.status_code < 500

    assert Group.objects.filter(name=OFFICERS).exists()
    assert set(Group.objects.get(name=OFFICERS).permissions.all()) == ours[OFFICERS]
    assert not ApiToken.objects.exclude(user=person).filter(user=other).exists()
    if above:
        assert _row(other) == row, "an account above the person was touched"
        assert rights_of(other) == before, "what an account above the person may was changed"
    for account in get_user_model()._default_manager.filter(pk__in=[person.pk, other.pk]):
        had = mine if account.pk == person.pk else before
        assert rights_of(account) - had <= mine, "granted what the person lacks"
    for made in Group.objects.filter(name__startswith="made-", pk__gt=group.pk):
        names_of = set(made.permissions.values_list("codename", flat=True))
        assert names_of <= mine, "made a group that may what the person may not"


# --- As it was found -----------------------------------------------------------------------------


def test_rejects_that_an_account_with_can_change_user_makes_itself_superuser() -> None:
    person = Role(frozenset({"view_user", "change_user"})).account("ann")
    wish = Wish(frozenset({"view_user", "change_user"}), frozenset(), superuser=True)
    browser(person).post(f"/admin/auth/user/{person.pk}/change/", wish.of_account(person))
    person.refresh_from_db()
    assert not person.is_superuser


@pytest.mark.parametrize("target", [Role(superuser=True), Role(superuser=True, active=False)])
def test_rejects_another_password_for_a_superuser(target: Role) -> None:
    person, boss = MAKES_ACCOUNTS.account("ann"), target.account("boss")
    values = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    answer = browser(person).post(f"/admin/auth/user/{boss.pk}/password/", values)
    assert answer.status_code == 403
    assert _row(boss)["password"] == boss.password


def test_it_sets_the_password_of_somebody_who_may_less() -> None:
    person, auditor = MAKES_ACCOUNTS.account("ann"), SHIPPED[1].account("audrey")
    values = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
    answer = browser(person).post(f"/admin/auth/user/{auditor.pk}/password/", values)
    assert answer.status_code == 302
    auditor.refresh_from_db()
    assert auditor.check_password(PASSWORD)


@pytest.mark.parametrize("superuser", [False, True])
def test_rejects_a_change_of_the_hub_s_own_groups(superuser: bool) -> None:
    """The next start sets them to what the code says, without a word."""
    person = Role(frozenset(GROUPS), superuser=superuser).account("ann")
    group = Group.objects.get(name=OFFICERS)
    before = set(group.permissions.all())
    page = f"/admin/auth/group/{group.pk}/change/"
    assert browser(person).get(page).status_code == 200
    wish = Wish(frozenset({"view_user"}), frozenset(), superuser=False)
    assert browser(person).post(page, wish.of_group(OFFICERS)).status_code == 403
    assert set(group.permissions.all()) == before


def test_rejects_a_group_narrowed_under_a_member_who_may_more() -> None:
    person, boss = Role(frozenset(GROUPS)).account("ann"), Role(superuser=True).account("boss")
    group = Group.objects.create(name=fresh("readers"))
    group.permissions.set(permissions(["view_group"]))
    page = f"/admin/auth/group/{group.pk}/change/"
    empty = Wish(frozenset(), frozenset(), superuser=False).of_group(group.name)
    boss.groups.add(group)
    assert browser(person).post(page, empty).status_code == 403
    boss.groups.remove(group)
    assert browser(person).post(page, empty).status_code == 302
    assert not group.permissions.exists()


def test_it_gives_a_member_of_the_staff_what_one_has_oneself() -> None:
    person, new = MAKES_ACCOUNTS.account("ann"), Role().account("new")
    wish = Wish(frozenset({"view_agent"}), frozenset({OFFICERS, AUDITORS}), superuser=False)
    page = f"/admin/auth/user/{new.pk}/change/"
    assert browser(person).post(page, wish.of_account(new)).status_code == 302
    assert sorted(new.groups.values_list("name", flat=True)) == sorted([OFFICERS, AUDITORS])


def test_rejects_a_change_of_a_group_whose_member_may_more_by_another_group() -> None:
    ensure_groups()
    editor = Role(frozenset(ACCOUNTS) | frozenset(GROUPS))
    person, other = editor.account("ann"), Role(groups=frozenset({OFFICERS})).account("tom")
    group = Group.objects.create(name=fresh("role"))
    other.groups.add(group)
    wish = Wish(frozenset({"add_user"}), frozenset(), superuser=False)
    answer = browser(person).post(
        f"/admin/auth/group/{group.pk}/change/", wish.of_group(group.name)
    )
    assert answer.status_code == 403
    assert not group.permissions.exists()

"""Django's own admin pages: each answers, and what changes a row is in the trail with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.test import Client

from registry.admin.officers.accounts import own_password_name
from registry.admin.officers.login import MOST_FAILURES, sign_in_limit
from registry.admin.officers.sign_in_limit import MOST_UNDER_WAY
from registry.officers.actor import pseudonym
from registry.trail.actions import count_refusals
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.addresses import Address, World, admin_addresses, furnish
from tests.registry.admin_cast import form_of, officer_client
from tests.registry.agent_cast import fresh

pytestmark = pytest.mark.usefixtures("database")

PASSWORD = "another long enough password"
NEW_PASSWORD = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
WRITES = re.compile(r'\s*(INSERT INTO|UPDATE|DELETE FROM)\s+"?(\w+)', re.IGNORECASE)
# Who is signed in, forms that were sent and Django's own log: no judgement and no right depends on
# them. A bulk decision makes its entries row by row.
NO_ROWS = {
    "django_session", "django_admin_log", "registry_entry", "registry_entrybody", "registry_hub",
    "registry_sentform", "registry_bulkdecision",
}  # fmt: skip
# The hub of this run writes them by itself, also while a page is asked for.
OF_THE_HUB = {"messaging_backgroundtask", "messaging_process", "messaging_node"}


@dataclass(slots=True)
class Written:
    """The tables in which rows came, went or changed, and those written in no transaction."""

    changed: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    entries: int = 0


@contextmanager
def watching(*rows: Any) -> Iterator[Written]:
    """What is written meanwhile, as the statements say; an update counts if it changes `rows`."""
    written = Written()

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found = WRITES.match(sql)
        if found and found.group(2) not in NO_ROWS:
            if found.group(1).upper() != "UPDATE":
                written.changed.add(found.group(2))
            if not context["connection"].in_atomic_block:
                written.alone.add(found.group(2))
        return execute(sql, params, many, context)

    before, entries = _contents(rows), Entry.objects.count()
    with connection.execute_wrapper(note):
        yield written
    now = _contents(rows)
    written.changed |= {label for label, values in before.items() if now[label] != values}
    written.entries = Entry.objects.count() - entries


def _contents(rows: tuple[Any, ...]) -> dict[str, Any]:
    return {
        row._meta.db_table: type(row)._default_manager.filter(pk=row.pk).values().first()
        for row in rows
        if row._meta.db_table not in OF_THE_HUB
    }


@pytest.fixture
def boss(database: None) -> Client:
    return officer_client()


def _check(answer: Any, written: Written, where: str) -> None:
    assert answer.status_code < 500, where
    assert not written.alone, f"{where} writes {written.alone} outside a transaction"
    assert written.entries or not written.changed, f"{where} changes {written.changed} unseen"


def _posts(client: Client, address: Address, world: World) -> Iterator[dict[str, Any]]:
    """What anybody may post there: nothing, the form as it is shown, a list's actions."""
    yield {}
    shown = client.get(address.path)
    if shown.status_code == 200 and shown.headers["Content-Type"].startswith("text/html"):
        yield form_of(shown) | {"reason": "walked", **NEW_PASSWORD}
    label = address.route.removeprefix("admin/").rstrip("/").replace("/", ".")
    if world.rows.get(label):  # a list
        for name in _actions(label):
            for more in ({}, {"post": "yes"}):
                yield {"action": name, "_selected_action": [world.rows[label].pk], **more}
    if address.route.endswith("/delete/"):
        yield {"post": "yes"}


def _actions(label: str) -> list[str]:
    model_admin = {m._meta.label_lower: a for m, a in admin.site._registry.items()}[label]
    named = [str(getattr(each, "__name__", each)) for each in model_admin.actions or ()]
    return ["delete_selected", "no_such_action", *named]


def test_it_answers_every_address_of_the_admin(boss: Client) -> None:
    world = furnish()
    for address in admin_addresses(world):
        with watching(*filter(None, world.rows.values())) as written:
            answer = boss.get(address.path)
        _check(answer, written, f"GET {address.path}")


def test_it_enters_whatever_a_post_to_any_address_of_the_admin_changes(boss: Client) -> None:
    world = furnish()
    pages = admin_addresses(world)
    # What ends the session, or a row, comes last.
    last = ("logout", "/delete/", "auth/user/", "auth/group/")
    pages.sort(key=lambda address: sum(word in address.route for word in last))
    for address in pages:
        if address.route.endswith("/run/"):
            continue  # starts a task for real; tests/messaging/test_task_runs.py has it
        for values in list(_posts(boss, address, world)):
            with watching(*filter(None, world.rows.values())) as written:
                answer = boss.post(address.path, values)
            _check(answer, written, f"POST {address.path} {sorted(values)}")


def _account() -> Any:
    return get_user_model()._default_manager.create_user(fresh("ann"), is_staff=True)


def test_it_enters_a_password_that_is_set_for_somebody(boss: Client) -> None:
    account = _account()
    with watching() as written:
        answer = boss.post(f"/admin/auth/user/{account.pk}/password/", NEW_PASSWORD)
    assert (answer.status_code, written.alone) == (302, set())
    (entry,) = Entry.objects.filter(subject=pseudonym(account.pk)).select_related("body")
    account.refresh_from_db()
    assert account.check_password(PASSWORD)
    assert entry.kind == "officer.changed"
    assert b"password" in entry.body.content()
    assert PASSWORD.encode() not in entry.body.content()


def test_it_enters_that_a_person_changes_their_own_password(database: None) -> None:
    account = _account()
    account.set_password("the old long password")
    account.save()
    client = Client(HTTP_HOST="localhost")
    client.force_login(account)
    values = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    for old, status, entries in (("wrong", 200, 0), ("the old long password", 302, 1)):
        with watching() as written:
            answer = client.post("/admin/password_change/", {"old_password": old, **values})
        assert (answer.status_code, written.alone) == (status, set())
        assert Entry.objects.filter(subject=pseudonym(account.pk)).count() == entries
    assert client.get("/admin/password_change/done/").status_code == 200  # still signed in


def test_rejects_guesses_of_the_old_password(database: None) -> None:
    """A session that was left open is no place to find out the password of its account."""
    account = _account()
    account.set_password("the old long password")
    account.save()
    client = Client(HTTP_HOST="localhost")
    client.force_login(account)
    values = {"new_password1": PASSWORD, "new_password2": PASSWORD}
    now = datetime.now(UTC)
    with transaction.atomic():
        for moment in (now, now + timedelta(minutes=1)):
            key = (own_password_name(account), str(Kind.ADMIN_DENIED))
            count_refusals({key: MOST_FAILURES - 1}, moment)

    guess = client.post("/admin/password_change/", {"old_password": "wrong", **values})
    assert "incorrectly" in guess.content.decode()
    refused = [
        client.post("/admin/password_change/", {"old_password": old, **values}).content.decode()
        for old in ("wrong", "the old long password")
    ]
    assert "Too many failed attempts" in refused[1]
    account.refresh_from_db()
    assert not account.check_password(PASSWORD)


def test_rejects_more_changes_of_ones_password_at_a_time_than_a_person_needs(
    database: None,
) -> None:
    account = _account()
    client = Client(HTTP_HOST="localhost")
    client.force_login(account)
    with ExitStack() as inside:
        name = own_password_name(account)
        assert all(
            inside.enter_context(sign_in_limit.counting(name)) for _ in range(MOST_UNDER_WAY)
        )
        assert client.post("/admin/password_change/", {"old_password": "x"}).status_code == 429
    assert client.post("/admin/password_change/", {"old_password": "x"}).status_code == 200


def test_it_enters_what_is_deleted_from_a_list(boss: Client) -> None:
    rows = [Group.objects.create(name=fresh("g")) for _ in "ab"]
    subjects = [f"group:{row.name}" for row in rows]
    chosen = {"action": "delete_selected", "_selected_action": [row.pk for row in rows]}
    asked = boss.post("/admin/auth/group/", chosen)
    assert asked.status_code == 200
    assert not Entry.objects.filter(subject__in=subjects).exists()
    with watching() as written:
        done = boss.post("/admin/auth/group/", {**chosen, "post": "yes"})
    assert (done.status_code, written.alone) == (302, set())
    assert not Group.objects.filter(pk__in=[row.pk for row in rows]).exists()
    entered = Entry.objects.filter(subject__in=subjects).values_list("subject", flat=True)
    assert sorted(entered) == sorted(subjects)


def test_rejects_a_change_that_cannot_be_entered(boss: Client) -> None:
    """The trail's lock or its table may be away: then the password is the one before."""
    account = _account()
    before = account.password

    def away(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "registry_entry" in sql and sql.lstrip().upper().startswith("INSERT"):
            raise OSError("the trail is away")
        return execute(sql, params, many, context)

    boss.raise_request_exception = False
    with connection.execute_wrapper(away):
        answer = boss.post(f"/admin/auth/user/{account.pk}/password/", NEW_PASSWORD)
    account.refresh_from_db()
    assert (answer.status_code, account.password) == (500, before)

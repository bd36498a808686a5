"""Entries in the admin: read, found, put in their context, and not changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client

from registry.officers.groups import AUDITORS
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from registry.trail.triggers import make_triggers
from tests.trail.readers import add, fresh, note, person
from tests.trail.unprotected import drop_triggers

pytestmark = pytest.mark.usefixtures("database")

LIST = "/admin/registry/entry/"


def browser_of(*groups: str, permissions: tuple[str, ...] = ()) -> Client:
    user = person(*groups)
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(HTTP_HOST="localhost")
    client.force_login(user)
    return client


@pytest.fixture(scope="module")
def browser(database: None) -> Client:
    return browser_of(AUDITORS)


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", answer.content.decode()).split())


def listed(browser: Client, **asked: str) -> list[int]:
    page = browser.get(LIST, asked)
    assert page.status_code == 200
    return [int(index) for index in re.findall(r"/entry/(\d+)/change/", page.content.decode())]


def test_it_lists_who_did_what_and_why(browser: Client) -> None:
    sender, recipient = fresh("alice"), fresh("bob")
    index = add(
        note(
            kind=Kind.ENVELOPE_DENIED,
            actor=f"agent:{sender}",
            sender=sender,
            recipient=recipient,
            verdict="denied",
            shared={"code": "trust.score", "detail": "62 is below 70"},
        )
    )
    page = text_of(browser.get(LIST, {"q": sender}))
    when = f"{Entry.objects.get(position=index).time:%Y-%m-%d %H:%M:%S} UTC"
    assert (
        f"{index} {when} envelope.denied agent:{sender} {sender} \u2192 {recipient} denied "
        "trust.score: 62 is below 70"
    ) in page


def test_it_finds_by_message_request_agent_and_number(browser: Client) -> None:
    message, request, agent = fresh("m"), fresh("r"), fresh("alice")
    index = add(note(message_id=message), note(request_id=request), note(recipient=agent), note())
    assert listed(browser, q=message) == [index]
    assert listed(browser, q=request) == [index + 1]
    assert listed(browser, q=f" {agent} ") == [index + 2]
    assert index + 3 in listed(browser, q=str(index + 3))
    assert listed(browser, q="9" * 400) == []


def test_it_filters_by_kind_verdict_sensitivity_and_time(browser: Client) -> None:
    agent = fresh("alice")
    first = add(
        note(sender=agent, kind=Kind.ENVELOPE_DENIED, verdict="denied", sensitivity="public"),
        note(sender=agent, verdict="accepted", sensitivity="restricted"),
        note(sender=agent, kind=Kind.SESSION_OPENED),
    )
    assert listed(browser, q=agent, kind="envelope.*") == [first + 1, first]
    assert listed(browser, q=agent, kind="envelope.denied") == [first]
    assert listed(browser, q=agent, verdict="accepted") == [first + 1]
    assert listed(browser, q=agent, sensitivity="public") == [first]
    assert listed(browser, q=agent, period="hour") == [first + 2, first + 1, first]
    assert listed(browser, q=agent, kind="nonsense") == []


def test_it_offers_to_export_what_is_listed(browser: Client) -> None:
    page = browser.get(LIST, {"kind": "envelope.*", "verdict": "denied", "period": "day"})
    links = re.findall(r'href="(/api/v1/provenance/export[^"]*)"', page.content.decode())
    assert [re.findall(r"format=(\w+)", link) for link in links] == [["csv"], ["ndjson"]]
    for link in links:
        assert "kind=envelope.%2A&amp;verdict=denied&amp;timeFrom=20" in link
        assert browser.get(link.replace("&amp;", "&")).status_code == 200


def test_it_shows_an_entry_in_its_context(browser: Client) -> None:
    message, request, agent = fresh("m"), fresh("r"), fresh("alice")
    first = add(
        note(message_id=message, request_id=request, sender=agent, shared={"depth": {"x": 1}}),
        note(subject="something else"),
        note(kind=Kind.ENVELOPE_WITHHELD, message_id=message, shared={"reason": "revoked <b>"}),
        note(message_id=fresh("m"), request_id=request),
    )
    answer = browser.get(f"{LIST}{first}/change/")
    page, html = text_of(answer), answer.content.decode()
    assert f"Entry {first}: envelope.accepted" in page
    assert f"Request {request}" in page
    assert "fit each other" in page
    assert "&quot;depth&quot;: {" in html
    assert "revoked &lt;b&gt;" in html
    links = [int(i) for i in re.findall(r"/entry/(\d+)/change/", html)]
    assert links == [*([first - 1] if first else []), first + 1, first + 2, first + 3]
    assert f"/api/v1/provenance/{first}/" in html


@pytest.mark.parametrize("number", ["x", "-1", "9" * 18, "9" * 40, "1_0", "\u0661"])
def test_it_knows_no_other_entries(browser: Client, number: str) -> None:
    assert browser.get(f"{LIST}{number}/change/").status_code == 404


def test_it_raises_the_alarm_over_a_changed_entry(browser: Client) -> None:
    index = add(note(sender=fresh("alice")), note(sender=fresh("bob")))
    drop_triggers()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE registry_entry SET sender = %s WHERE position = %s", ["mallory", index]
            )
    finally:
        make_triggers()
    page = text_of(browser.get(f"{LIST}{index}/change/"))
    assert "changed after it was logged: the columns differ from the leaf" in page
    assert "fit each other" not in page
    assert "changed after" not in text_of(browser.get(f"{LIST}{index + 1}/change/"))


def test_it_names_people_only_to_those_who_may_know() -> None:
    from registry.officers.actor import Actor

    officer = person()  # neither staff nor in a group any more
    index = add(note(actor=Actor.of_user(officer).name))
    for path in (f"{LIST}{index}/change/", f"{LIST}?q={index}"):
        assert officer.username in text_of(browser_of(AUDITORS).get(path))
        reader = browser_of(permissions=("view_entry",))
        assert officer.username not in text_of(reader.get(path))


@pytest.mark.parametrize("group", [AUDITORS, "Compliance officers"])
def test_rejects_every_change(group: str) -> None:
    browser, index = browser_of(group), add(note(subject="kept"))
    assert browser.get(f"{LIST}add/").status_code == 403
    assert browser.post(f"{LIST}add/", {"index": 10**9}).status_code == 403
    assert browser.post(f"{LIST}{index}/delete/", {"post": "yes"}).status_code == 403
    browser.post(f"{LIST}{index}/change/", {"subject": "other"})
    browser.post(LIST, {"action": "delete_selected", "_selected_action": [index]})
    assert Entry.objects.get(position=index).subject == "kept"


def test_rejects_people_without_the_right() -> None:
    index = add(note())
    browser = browser_of()
    assert browser.get(LIST).status_code == 403
    assert browser.get(f"{LIST}{index}/change/").status_code == 403
    assert Client(HTTP_HOST="localhost").get(LIST).status_code == 302

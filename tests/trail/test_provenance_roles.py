"""Officers and auditors may read the trail, and no role may write to it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from atp.trust import tokens
from atp.trust.keys import PrivateKey
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS, OFFICERS
from registry.trail.models import Entry
from tests.trail.readers import PROVENANCE, add, eventually, fresh, note, person, reader, token_of

PATHS = [
    PROVENANCE,
    f"{PROVENANCE}0/",
    f"{PROVENANCE}feed",
    f"{PROVENANCE}export?format=ndjson",
]


@pytest.fixture(autouse=True)
def something_to_read(hub: Any) -> None:
    add(note())


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("group", [AUDITORS, OFFICERS])
def test_it_lets_officers_and_auditors_read(hub: Any, path: str, group: str) -> None:
    with reader(hub.http_url, group) as client:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_rejects_strangers(hub: Any, path: str) -> None:
    answer = httpx.get(hub.http_url + path)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", PATHS)
def test_rejects_people_without_the_right(hub: Any, path: str) -> None:
    with reader(hub.http_url, user=person()) as client:
        assert client.get(path).status_code == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["Token", "Bearer"])
def test_rejects_what_an_agent_can_show(hub: Any, path: str, scheme: str) -> None:
    claims = {
        "iss": "alice",
        "aud": "hub",
        "htu": hub.ws_url,
        "nonce": "n" * 22,
        "cnonce": "c" * 22,
    }
    proof = tokens.issue(tokens.TokenKind.AUTH, claims, PrivateKey.generate(), now=int(time.time()))
    answer = httpx.get(hub.http_url + path, headers={"Authorization": f"{scheme} {proof}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_rejects_every_way_of_writing(auditor: httpx.Client, path: str, method: str) -> None:
    assert auditor.request(method, path, json={}).status_code == 405


def test_it_takes_a_login_to_the_admin_as_well(hub: Any) -> None:
    browser = Client()
    browser.force_login(person(AUDITORS))
    cookie = browser.cookies[settings.SESSION_COOKIE_NAME].value
    with httpx.Client(cookies={settings.SESSION_COOKIE_NAME: cookie}) as client:
        assert client.get(hub.http_url + PROVENANCE).status_code == 200
        assert client.post(hub.http_url + PROVENANCE, json={}).status_code in {403, 405}


def test_it_enters_each_list_and_each_export_before_it_answers(hub: Any) -> None:
    user, sender = person(AUDITORS), fresh("alice")
    index = add(note(sender=sender))
    with reader(hub.http_url, user=user) as client:
        size = client.get(PROVENANCE, params={"sender": sender}).json()["logSize"]
        client.get(f"{PROVENANCE}{index}/")
        client.get(f"{PROVENANCE}export", params={"format": "csv", "sender": sender})
    eventually(_readings_of(user).filter(kind="export.ended").exists, "the end of the export")
    rows = list(_readings_of(user).select_related("body"))
    assert [(row.kind, row.subject) for row in rows] == [
        ("trail.queried", "provenance"),
        ("trail.queried", f"entry {index}"),
        ("export.created", "provenance"),
        ("export.ended", f"entry {rows[2].index}"),
    ]
    assert rows[0].index == size
    assert f'"sender":["{sender}"]'.encode() in bytes(rows[0].body.shared)
    assert b'"format":"csv"' in bytes(rows[2].body.shared)


def test_it_enters_nothing_that_it_does_not_answer(hub: Any) -> None:
    user = person(AUDITORS)
    with reader(hub.http_url, user=user) as client:
        assert client.get(PROVENANCE, params={"nonsense": "1"}).status_code == 400
        assert client.get(f"{PROVENANCE}{2**62}/").status_code == 404
        assert client.get(f"{PROVENANCE}{2**80}/").status_code == 404
    assert not _readings_of(user).exists()


@pytest.mark.parametrize("path", PATHS)
def test_it_reads_nothing_for_a_head(hub: Any, path: str) -> None:
    user = person(AUDITORS)
    with reader(hub.http_url, user=user) as client:
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.head(path, params={"nonsense": "1"}).status_code == 400
    assert not _readings_of(user).exists()
    assert httpx.head(hub.http_url + path).status_code == 401


def test_it_runs_no_query_about_the_trail_for_a_head(auditor: httpx.Client) -> None:
    client, headers = Client(), {"Authorization": auditor.headers["Authorization"]}
    for path in PATHS:
        with CaptureQueriesContext(connection) as captured:
            assert client.head(path, headers=headers).status_code == 200
        assert captured.captured_queries
        assert not [each for each in captured.captured_queries if "registry_entry" in each["sql"]]


@pytest.mark.parametrize("scheme", ["Token", "Bearer", "bearer"])
def test_it_takes_a_token_as_token_and_as_bearer(hub: Any, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {token_of(person(AUDITORS))}"}
    assert httpx.get(hub.http_url + PROVENANCE, headers=headers).status_code == 200


def _readings_of(user: Any) -> Any:
    """Return the entries about a person, without the one about the token used to read."""
    return Entry.objects.filter(actor=Actor.of_user(user).name).exclude(kind="officer.changed")

"""Readings while another transaction holds the log: 503 that says when to try again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.conf import settings as live
from django.db import connection, connections, transaction
from django.test import Client

from registry.officers.groups import AUDITORS
from tests.trail.readers import PROVENANCE, add, note, person

pytestmark = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite's one writer is waited for by its own time-out"
)
PASS_PHRASE = "a long pass phrase"
PATHS = [PROVENANCE, f"{PROVENANCE}0/", f"{PROVENANCE}export?format=csv"]


@pytest.fixture
def somebody(database: None) -> Any:
    user = person(AUDITORS)
    user.set_password(PASS_PHRASE)
    user.is_staff = True
    user.save()
    return user


@pytest.fixture
def locked(settings: Any, hub: Any) -> Iterator[None]:
    """Hold the log's lock in a transaction of another thread."""
    settings.ATP_TRAIL_LOCK_SECONDS = 0.2
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            add(note())
            holds.set()
            done.wait(20)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    assert holds.wait(20)
    yield
    done.set()
    holder.join(20)


@pytest.mark.parametrize("path", PATHS)
def test_it_asks_readers_to_try_again(
    hub: Any, auditor: httpx.Client, locked: None, path: str
) -> None:
    answer = auditor.get(path)
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["code"] == "http.unavailable"


def test_it_keeps_no_place_for_an_export_that_did_not_begin(
    auditor: httpx.Client, locked: None
) -> None:
    assert [auditor.get(PATHS[2]).status_code for _ in range(4)] == [503] * 4


def test_it_asks_people_who_sign_in_to_try_again(somebody: Any, locked: None) -> None:
    """A login is entered in the trail too."""
    browser = Client(raise_request_exception=False)
    form = {"username": somebody.get_username(), "password": PASS_PHRASE}
    answer = browser.post("/admin/login/", form)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert live.SESSION_COOKIE_NAME not in browser.cookies

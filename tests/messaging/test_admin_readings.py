"""Opening traffic or entries in the admin is entered, before anything is shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import Client

from messaging.models import Envelope
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS
from registry.officers.models import AdminReading
from registry.officers.readings import (
    MOST_ENTERED,
    WINDOW,
    PageOpened,
    enter_reading,
    enter_repeated_readings,
)
from registry.trail.actions import append
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Player, ask
from tests.messaging.conftest import LogIn
from tests.messaging.dead_mail import dead_letter
from tests.messaging.test_dead_letter_pages import member_of, signed_in
from tests.trail.readers import note

WAIT_SECONDS = 60


@pytest.fixture
def auditor(database: None) -> User:
    return member_of(AUDITORS)


@pytest.fixture
def browser(auditor: User) -> Client:
    return signed_in(auditor)


@pytest.fixture
def envelope(log_in: LogIn, alice: Player, bob: Player) -> Envelope:
    letter = ask(alice, bob)
    with log_in(alice) as wire:
        assert wire.submit(letter)["status"] == "accepted"
    return Envelope.objects.get(message_id=letter.message_id)


def readings(user: Any) -> list[Entry]:
    kinds = (Kind.TRAFFIC_READ, Kind.TRAIL_QUERIED)
    rows = Entry.objects.filter(actor=Actor.of_user(user).name, kind__in=kinds)
    return list(rows.select_related("body").order_by("position"))


def said(entry: Entry) -> dict[str, Any]:
    body: dict[str, Any] = entry.body.read()
    return body


def enter_all(now: datetime) -> None:
    while enter_repeated_readings(now):
        pass


@contextmanager
def locked_log() -> Iterator[None]:
    """Hold the log lock in another thread; on SQLite, its one writer."""
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            append([note(kind=Kind.TAG_CREATED)])
            locked.set()
            done.wait(WAIT_SECONDS)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(WAIT_SECONDS), "the log was not locked"
    try:
        yield
    finally:
        done.set()
        holder.join(WAIT_SECONDS)


def test_it_enters_who_opens_a_payload(browser: Client, auditor: User, envelope: Envelope) -> None:
    page = browser.get(f"/admin/messaging/envelope/{envelope.pk}/change/")
    assert page.status_code == 200
    (entry,) = readings(auditor)
    assert (entry.kind, entry.subject) == ("traffic.read", "envelope")
    assert (entry.message_id, entry.sender) == (envelope.message_id, envelope.sender_id)


def test_it_enters_lists_with_what_was_searched(browser: Client, auditor: User) -> None:
    asked = {"q": "alice-1", "status__exact": "denied"}
    for path, kind, subject in (
        ("messaging/envelope", "traffic.read", "envelopes"),
        ("messaging/deadletter", "traffic.read", "dead letters"),
        ("registry/entry", "trail.queried", "provenance"),
    ):
        searched = asked if path == "messaging/envelope" else {"q": "alice-1"}
        assert browser.get(f"/admin/{path}/", searched).status_code == 200
        entry = readings(auditor)[-1]
        assert (entry.kind, entry.subject) == (kind, subject)
        assert said(entry)["asked"] == {name: [value] for name, value in searched.items()}


def test_it_enters_pages_with_recent_messages(
    browser: Client, auditor: User, log_in: LogIn, alice: Player, bob: Player
) -> None:
    letter = dead_letter(log_in, alice, bob)
    assert browser.get(f"/admin/messaging/deadletter/{letter.pk}/change/").status_code == 200
    assert browser.get(f"/admin/registry/agent/{alice.id}/change/").status_code == 200
    of_letter, of_agent = readings(auditor)
    assert of_letter.message_id == letter.envelope.message_id
    assert (of_agent.kind, of_agent.subject) == ("traffic.read", alice.id)


def test_it_counts_a_page_that_is_opened_again(
    browser: Client, auditor: User, envelope: Envelope
) -> None:
    for _ in range(3):
        browser.get(f"/admin/messaging/envelope/{envelope.pk}/change/")
    rows = AdminReading.objects.filter(actor=Actor.of_user(auditor).name)
    counted = sum(row.count - row.is_entered for row in rows)
    entered = readings(auditor)
    assert len(entered) + counted == 3
    enter_all(datetime.now(UTC) + WINDOW)
    assert not rows.all().exists()
    again = [one for entry in readings(auditor) for one in said(entry).get("again", ())]
    assert sum(one["count"] for one in again) == counted
    assert {one["messageId"] for one in again} == {envelope.message_id}


def test_it_names_all_pages_of_a_person_who_clicks_without_end(auditor: User) -> None:
    now = datetime.now(UTC)
    many = 5 * MOST_ENTERED
    for number in range(many):
        enter_reading(auditor, PageOpened(Kind.TRAIL_QUERIED, f"entry {number}"), now=now)
    assert len(readings(auditor)) == MOST_ENTERED
    enter_all(now + WINDOW)
    entries = readings(auditor)
    assert len(entries) <= MOST_ENTERED + 1 + many // 100 + 1
    again = [one["subject"] for entry in entries for one in said(entry).get("again", ())]
    alone = [entry.subject for entry in entries if "again" not in said(entry)]
    assert sorted(again + alone) == sorted(f"entry {number}" for number in range(many))


def test_it_shows_nothing_that_it_can_not_enter(
    browser: Client,
    auditor: User,
    envelope: Envelope,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.ATP_TRAIL_LOCK_SECONDS = 0.2
    if connection.vendor == "sqlite":  # its one writer: so the hub of this run does not wait long
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.2)
    paths = [
        f"/admin/messaging/envelope/{envelope.pk}/change/",
        "/admin/registry/entry/",
    ]
    with locked_log():
        answers = [browser.get(path) for path in paths]
    for answer in answers:
        assert answer.status_code == 503
        assert "entered in the trail first" in answer.content.decode()
        assert envelope.message_id not in answer.content.decode()
    assert not readings(auditor)
    assert [browser.get(path).status_code for path in paths] == [200, 200]


def test_it_enters_nothing_for_people_without_the_right(envelope: Envelope) -> None:
    stranger = member_of(AUDITORS)
    stranger.groups.clear()
    browser = signed_in(stranger)
    for path in ("messaging/envelope/", f"messaging/envelope/{envelope.pk}/change/"):
        assert browser.get(f"/admin/{path}").status_code == 403
    assert not readings(stranger)

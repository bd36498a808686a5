"""Rules that decide nothing: `log` writes a line, `notify` tells the officers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from messaging.judging import rule_notices
from registry.officers.groups import AUDITORS, OFFICERS
from registry.policies.models import RuleNotice
from registry.trail.models import Entry
from tests.cast import Player, ask, write
from tests.messaging.conftest import LogIn, until
from tests.registry.admin_cast import Browser

RULE = {"name": "no floods", "severity": "low"}


def notices_of(player: Player) -> list[RuleNotice]:
    return list(RuleNotice.objects.filter(sender=player.id).order_by("pk"))


@pytest.fixture
def sign_in(hub: Any, db_name: Any = None) -> Any:
    """A browser of somebody in that group."""

    def sign_in(group: str, name: str) -> Client:
        user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True})
        user.groups.set([Group.objects.get(name=group)])
        client = Browser()
        client.force_login(user)
        return client

    return sign_in


def test_it_notifies_of_what_a_rule_matched(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player, enforce: Any
) -> None:
    enforce(**RULE, action="notify")
    alices, letters = log_in(alice), [write(alice, bob), ask(alice, bob), write(alice, mallory)]
    statuses = [alices.submit(letter)["status"] for letter in (*letters, letters[0])]
    assert statuses == ["accepted"] * 4  # it decides nothing
    until(lambda: notices_of(alice) and notices_of(alice)[0].count == 3, "a notification")
    (notice,) = notices_of(alice)  # the repeat is not counted, and recipients make no rows
    assert (notice.rule, notice.recipient) == ("no floods", mallory.id)
    assert notice.message_id == letters[2].message_id


def test_officers_see_it_and_say_so(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, sign_in: Any
) -> None:
    enforce(**RULE, action="notify")
    alices = log_in(alice)
    alices.submit(write(alice, bob))
    until(lambda: notices_of(alice), "a notification")
    (notice,) = notices_of(alice)
    page, data = (
        "/admin/registry/rulenotice/",
        {"action": "mark_as_seen", "_selected_action": notice.pk},
    )

    auditor, officer = sign_in(AUDITORS, "ned-the-auditor"), sign_in(OFFICERS, "ann-the-officer")
    assert alice.id in auditor.get(page).content.decode()
    auditor.post(page, data)
    assert notices_of(alice)[0].seen_at is None

    assert "?state=unseen" in officer.get("/admin/").content.decode()
    assert officer.post(page, data).status_code == 302
    (seen,) = notices_of(alice)
    assert str(seen.seen_by) == "ann-the-officer"
    newest = Entry.objects.filter(kind="notification.seen").order_by("-position")[0]
    assert alice.id in newest.body.content().decode()

    alices.submit(write(alice, bob))
    until(lambda: len(notices_of(alice)) == 2, "a new notification")


def test_it_logs_what_a_rule_matched(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, caplog: pytest.LogCaptureFixture
) -> None:
    enforce(**RULE, action="log")
    letter = write(alice, bob)
    with caplog.at_level(logging.INFO, logger="messaging.judging.rule_notices"):
        assert log_in(alice).submit(letter)["status"] == "accepted"
        until(lambda: letter.message_id in caplog.text, "a line in the log")
    (line,) = [r.getMessage() for r in caplog.records if letter.message_id in r.getMessage()]
    assert "'no floods'" in line
    assert f"from {alice.id} to {bob.id}" in line


def test_a_notification_that_fails_is_an_alarm_and_no_denial(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, caplog: Any, monkeypatch: Any
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(rule_notices, "record_notices", fail)
    enforce(**RULE, action="notify")
    assert log_in(alice).submit(write(alice, bob))["status"] == "accepted"
    until(lambda: "notifications of policies were lost" in caplog.text, "an alarm")

"""Expired mail: it delays no other mail, and one query finds it for many agents."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from messaging.mail.withhold import expire
from messaging.models import Delivery, Envelope, Mailbox
from registry.scores.models import Violation
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount
from tests.cast import Player, forged, make_agent, write
from tests.messaging.conftest import LogIn, until

BRIEF_SECONDS = 20  # less than the lifetime of other letters
ROUND_TRIPS = 20  # of a sweep in which few mailboxes are due


def _when_brief_mail_is_over() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=BRIEF_SECONDS + 1)


def _mailbox(player: Player) -> Mailbox:
    return Mailbox.objects.get(agent_id=player.id, stream="mail")


def test_it_makes_room_in_the_inbox_of_an_absent_agent(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_INBOX_LIMIT = 10
    senders = [alice, *(make_agent() for _ in range(9))]
    wires = [log_in(sender) for sender in senders]
    for sender, wire in zip(senders, wires, strict=True):
        assert wire.submit(write(sender, bob, lifetime=BRIEF_SECONDS))["status"] == "accepted"
    assert wires[0].submit(write(alice, bob))["code"] == "flow.recipient_full"
    expire(_when_brief_mail_is_over())

    assert wires[0].submit(write(alice, bob))["status"] == "accepted"
    bobs = log_in(bob)
    assert [bobs.mail()["type"] for _ in range(11)] == ["gone"] * 10 + ["delivery"]
    bobs.ack(11)
    until(lambda: _mailbox(bob).acked_seq == 11, "the ack")
    assert _mailbox(bob).waiting == 0


def test_it_counts_what_is_left_between_what_expired(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, lasting = log_in(alice), 3 * BRIEF_SECONDS
    for lifetime in (BRIEF_SECONDS, lasting, BRIEF_SECONDS, lasting, BRIEF_SECONDS):
        assert alices.submit(write(alice, bob, lifetime=lifetime))["status"] == "accepted"
    assert _mailbox(bob).waiting == 5
    expire(_when_brief_mail_is_over())
    assert _mailbox(bob).waiting == 2
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert _mailbox(bob).waiting == 3

    bobs = log_in(bob)
    kinds = [bobs.mail()["type"] for _ in range(6)]
    assert kinds == ["gone", "delivery", "gone", "delivery", "gone", "delivery"]
    bobs.ack(4)
    until(lambda: _mailbox(bob).acked_seq == 4, "the ack")
    assert _mailbox(bob).waiting == 2  # until the next sweep the expired one counts
    bobs.ack(6)
    until(lambda: _mailbox(bob).waiting == 0, "the ack")


def test_it_expires_the_mail_of_many_agents_at_once(log_in: LogIn, alice: Player) -> None:
    absent = [make_agent() for _ in range(8)]
    expire(_when_brief_mail_is_over())  # what other tests left
    alices = log_in(alice)
    letters = [write(alice, one, lifetime=BRIEF_SECONDS) for one in absent]
    alices.send_together(*letters)
    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    with CaptureQueriesContext(connection) as queries:
        assert expire(_when_brief_mail_is_over()) >= len(absent)

    assert len(queries) < ROUND_TRIPS
    mine = Delivery.objects.filter(recipient_id__in=[one.id for one in absent])
    assert set(mine.values_list("state", "code")) == {("expired", "clock.expired")}


def test_it_looks_at_no_mail_before_some_is_due(log_in: LogIn, alice: Player, bob: Player) -> None:
    assert log_in(alice).submit(write(alice, bob))["status"] == "accepted"
    now = datetime.now(UTC)

    def reads_mail() -> bool:
        with CaptureQueriesContext(connection) as queries:
            expire(now)
        return any(Delivery._meta.db_table in query["sql"] for query in queries)

    until(lambda: not reads_mail(), "a sweep that reads nothing")
    assert _mailbox(bob).waiting == 1


def test_it_only_counts_what_has_expired_on_arrival(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, now = log_in(alice), int(time.time())
    late = forged(alice, bob, claims={"exp": now - 1})
    for _ in range(2):
        receipt = alices.submit(late)
        assert (receipt["status"], receipt["code"]) == ("expired", "clock.expired")
        assert "entry" not in receipt

    assert not Envelope.objects.filter(message_id=late.message_id).exists()
    assert not Entry.objects.filter(message_id=late.message_id).exists()
    counted = RefusalCount.objects.filter(agent=alice.id, code="clock.expired")
    entered = Entry.objects.filter(kind=Kind.REFUSALS_COUNTED, sender=alice.id)
    assert counted.exists() or entered.exists()
    assert not Violation.objects.filter(agent_id=alice.id).exists()

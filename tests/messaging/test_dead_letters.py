"""Officers redeliver dead letters: each once, before it expires, and of good senders only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import import_module

import pytest
from django.apps import apps
from django.db import connection, connections
from pytest_django.fixtures import Settings

from atp.errors import FlowBusy, MalformedDocument
from messaging.mail.dead_letters import NotRedeliverable, Obstacle, count_open, redeliver
from messaging.mail.held import settle_held
from messaging.models import DeadLetter, Delivery
from registry.agents.actions import resume_agent, revoke_agent, revoke_key, suspend_agent
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, answer, ask, make_agent, write
from tests.messaging.conftest import LogIn, until
from tests.messaging.dead_mail import CODE, dead_letter, refuse
from tests.messaging.test_locked_mailbox import locked
from tests.messaging.test_notices import notices_for

REASON = "the handler was mended"


def redelivered(dead: DeadLetter) -> None:
    redeliver(dead.pk, actor=OFFICER, reason=REASON)


def again_for(dead: DeadLetter) -> list[Delivery]:
    """Return the deliveries that redelivery has made of this one's envelope."""
    rows = Delivery.objects.filter(envelope_id=dead.envelope_id, redelivered=True)
    return list(rows.order_by("seq"))


def test_it_delivers_a_dead_letter_again_at_the_end_of_the_stream(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    dead = dead_letter(log_in, alice, bob, notify=True)
    log_in(alice).submit(later := write(alice, bob))
    redelivered(dead)

    bobs = log_in(bob)
    assert bobs.mail()["ATP"]["messageId"] == later.message_id
    frame = bobs.mail()
    assert frame["ATP"]["messageId"] == dead.envelope.message_id
    assert (frame["seq"], frame["redelivered"], "attempt" in frame) == (3, True, False)
    dead.refresh_from_db()
    assert dead.state == Delivery.State.REDELIVERED
    assert notices_for(alice)[-1][1:] == ("redelivered", CODE)


def test_it_enters_who_redelivered_it_and_why(log_in: LogIn, alice: Player, bob: Player) -> None:
    dead = dead_letter(log_in, alice, bob)
    redelivered(dead)
    entry = Entry.objects.get(kind=Kind.DELIVERY_REDELIVERED, message_id=dead.envelope.message_id)
    assert (entry.actor, entry.sender, entry.recipient) == (OFFICER.name, alice.id, bob.id)
    assert entry.body.reason == f"{CODE}: {REASON}"
    place = entry.body.read("recipient")
    assert (place["stream"], place["instead"], place["seq"]) == ("mail", 1, 2)


def test_it_pushes_it_to_a_recipient_that_is_connected(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    dead = dead_letter(log_in, alice, bob)
    bobs = log_in(bob)
    redelivered(dead)
    assert bobs.next("delivery")["redelivered"] is True


def test_what_was_redelivered_can_be_refused_and_redelivered_again(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    first = dead_letter(log_in, alice, bob)
    redelivered(first)
    bobs = log_in(bob)
    refuse(bobs, bobs.next("delivery"))
    dead = DeadLetter.objects.filter(envelope_id=first.envelope_id, state="refused")
    until(dead.exists, "the second refusal")
    with pytest.raises(NotRedeliverable, match=Obstacle.DONE):
        redelivered(first)
    redelivered(dead.get())
    assert [row.seq for row in again_for(first)] == [2, 3]


def test_it_stays_redelivered_when_it_is_held_meanwhile(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Its new place may be withheld in turn; an agent must not take the next one for a repeat."""
    redelivered(dead_letter(log_in, alice, bob))
    suspend_agent(alice.id, actor=OFFICER, reason="a doubt")
    bobs = log_in(bob)
    assert bobs.next("delivery")["withheld"] == "identity.not_active"
    resume_agent(alice.id, actor=OFFICER, reason="no doubt")
    settle_held(datetime.now(UTC))
    assert bobs.next("delivery")["redelivered"] is True


def test_it_redelivers_a_request_that_can_still_be_answered(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    request = ask(alice, bob)
    alices, bobs = log_in(alice), log_in(bob)
    alices.submit(request)
    refuse(bobs, bobs.mail())
    dead = DeadLetter.objects.filter(envelope__message_id=request.message_id)
    until(dead.filter(state="refused").exists, "the refusal")
    redelivered(dead.get())
    assert bobs.mail()["redelivered"] is True
    assert bobs.submit(answer(bob, request))["status"] == "accepted"
    assert alices.answers()["ATP"]["messageId"]


# --- What is refused -----------------------------------------------------------------------------


def _expire(dead: DeadLetter) -> None:
    Delivery.objects.filter(pk=dead.pk).update(expires_at=datetime.now(UTC))


def _suspend_sender(dead: DeadLetter) -> None:
    suspend_agent(dead.sender, actor=OFFICER, reason="a doubt")


def _revoke_sender(dead: DeadLetter) -> None:
    revoke_agent(dead.sender, actor=OFFICER, reason="a fault")


def _revoke_key(dead: DeadLetter) -> None:
    revoke_key(dead.envelope.kid, actor=OFFICER, reason="lost")


def _suspend_recipient(dead: DeadLetter) -> None:
    suspend_agent(dead.recipient_id, actor=OFFICER, reason="a doubt")


def _revoke_recipient(dead: DeadLetter) -> None:
    revoke_agent(dead.recipient_id, actor=OFFICER, reason="a fault")


@pytest.mark.parametrize(
    ("happens", "obstacle"),
    [
        (_expire, Obstacle.EXPIRED),
        (redelivered, Obstacle.DONE),
        (_suspend_sender, Obstacle.SENDER),
        (_revoke_sender, Obstacle.SENDER),
        (_revoke_key, Obstacle.KEY),
        (_suspend_recipient, Obstacle.RECIPIENT),
        (_revoke_recipient, Obstacle.RECIPIENT),
    ],
)
def test_rejects_what_may_not_come_any_more(
    log_in: LogIn,
    alice: Player,
    bob: Player,
    happens: Callable[[DeadLetter], None],
    obstacle: Obstacle,
) -> None:
    dead = dead_letter(log_in, alice, bob)
    happens(dead)
    before = len(again_for(dead))
    with pytest.raises(NotRedeliverable) as refusal:
        redelivered(dead)
    assert str(refusal.value) == obstacle
    assert len(again_for(dead)) == before


def test_rejects_a_request_that_was_answered(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Its recipient refused it, and answered it all the same."""
    request = ask(alice, bob)
    alices, bobs = log_in(alice), log_in(bob)
    alices.submit(request)
    frame = bobs.mail()
    assert bobs.submit(answer(bob, request))["status"] == "accepted"
    refuse(bobs, frame)
    dead = DeadLetter.objects.filter(envelope__message_id=request.message_id)
    until(dead.filter(state="refused").exists, "the refusal")
    with pytest.raises(NotRedeliverable, match=Obstacle.ANSWERED):
        redelivered(dead.get())


def test_rejects_more_than_an_inbox_takes(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    dead = [dead_letter(log_in, alice, bob) for _ in range(3)]
    settings.ATP_INBOX_LIMIT = 2
    for one in dead[:2]:
        redelivered(one)
    with pytest.raises(NotRedeliverable, match=Obstacle.FULL):
        redelivered(dead[2])


def test_rejects_a_delivery_that_is_no_dead_letter(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    log_in(alice).submit(letter := write(alice, bob))
    row = Delivery.objects.get(envelope__message_id=letter.message_id)
    for number in (row.pk, 2**62):
        with pytest.raises(NotRedeliverable, match="no such dead letter"):
            redeliver(number, actor=OFFICER, reason=REASON)


@pytest.mark.parametrize("reason", ["", " ", "x" * 301])
def test_rejects_a_redelivery_without_a_reason(
    log_in: LogIn, alice: Player, bob: Player, reason: str
) -> None:
    dead = dead_letter(log_in, alice, bob)
    with pytest.raises(MalformedDocument):
        redeliver(dead.pk, actor=OFFICER, reason=reason)


# --- At the same time ----------------------------------------------------------------------------


def _try(act: Callable[[], object]) -> bool:
    try:
        act()
    except NotRedeliverable:
        return False
    finally:
        connections.close_all()
    return True


def test_two_officers_at_once_redeliver_it_once(log_in: LogIn, alice: Player, bob: Player) -> None:
    dead = dead_letter(log_in, alice, bob)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: _try(lambda: redelivered(dead)), range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(again_for(dead)) == 1
    entries = Entry.objects.filter(message_id=dead.envelope.message_id)
    assert entries.filter(kind=Kind.DELIVERY_REDELIVERED).count() == 1


def test_nothing_of_a_sender_that_is_revoked_at_the_same_time_arrives(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    dead = [dead_letter(log_in, alice, bob) for _ in range(6)]
    acts: list[Callable[[], object]] = [partial(redelivered, one) for one in dead]
    acts.insert(3, partial(revoke_agent, alice.id, actor=OFFICER, reason="a fault"))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_try, acts))

    bobs, carol = log_in(bob), make_agent(organisation=bob.organisation)
    log_in(carol).submit(marker := write(carol, bob))
    while "ATP" not in (frame := bobs.mail()):
        assert frame.get("withheld", "identity.revoked") == "identity.revoked"
    assert frame["ATP"]["messageId"] == marker.message_id


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no locks of rows")
def test_it_says_that_others_hold_the_mailbox(log_in: LogIn, alice: Player, bob: Player) -> None:
    dead = dead_letter(log_in, alice, bob)
    with locked(bob), pytest.raises(FlowBusy):
        redelivered(dead)
    redelivered(dead)


# --- Counting ------------------------------------------------------------------------------------


def test_it_counts_what_can_be_redelivered(log_in: LogIn, alice: Player, bob: Player) -> None:
    before = count_open()
    dead = [dead_letter(log_in, alice, bob) for _ in range(3)]
    assert count_open() == before + 3
    redelivered(dead[0])
    _expire(dead[1])
    assert count_open() == before + 1


def test_it_finds_dead_letters_of_an_older_hub(log_in: LogIn, alice: Player, bob: Player) -> None:
    dead = dead_letter(log_in, alice, bob)
    Delivery.objects.filter(pk=dead.pk).update(refused_at=None)
    import_module("messaging.migrations.0011_dead_letters").note_when_refused(apps, None)
    entry = Entry.objects.get(kind=Kind.DELIVERY_REFUSED, message_id=dead.envelope.message_id)
    dead.refresh_from_db()
    assert dead.refused_at == entry.time

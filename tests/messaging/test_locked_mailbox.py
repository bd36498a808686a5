"""A mailbox that somebody else keeps locked: only who writes to it waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, connections, transaction

from messaging.models import Delivery, Mailbox, Presence
from messaging.tasks import fan_out, sweep
from registry.agents.actions import resume_agent, suspend_agent
from tests.cast import OFFICER, Player, broadcast, make_agent, write
from tests.messaging.acks import TELLS_DONE, marks, wait_for_marks
from tests.messaging.conftest import LogIn, until
from tests.messaging.dead_mail import dead_letter

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite has no locks of rows"
)


@contextmanager
def locked(agent: Player) -> Iterator[None]:
    """As an operator's session that holds a row and is left open."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            assert list(Mailbox.objects.select_for_update().filter(agent_id=agent.id))
            held.set()
            done.wait(60)
        connections.close_all()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(20)
    try:
        yield
    finally:
        done.set()
        holder.join(20)


def test_only_who_writes_to_a_locked_mailbox_hears_busy(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices = log_in(alice)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    to_bob, to_carol = write(alice, bob), write(alice, carol)
    with locked(bob):
        alices.send_together(to_bob, to_carol)
        assert alices.receipt(to_carol)["status"] == "accepted"
        busy = alices.receipt(to_bob)
        assert (busy["status"], busy["code"]) == ("busy", "flow.busy")
        assert busy["retryAfter"] > 0
    assert alices.submit(to_bob)["status"] == "accepted"


def test_only_the_broadcasts_of_its_sender_wait_for_a_locked_mailbox(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, _bobs = log_in(alice), log_in(bob)
    dave = make_agent(name="dave")
    erin = make_agent(name="erin", organisation=dave.organisation)
    daves, erins = log_in(dave), log_in(erin)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    with locked(bob):
        assert alices.submit(broadcast(alice))["status"] == "accepted"
        letter = broadcast(dave)
        assert daves.submit(letter)["status"] == "accepted"
        assert erins.mail()["ATP"]["messageId"] == letter.message_id
    fan_out()


def test_only_the_acks_of_its_agent_wait_for_a_locked_mailbox(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices, bobs, carols = log_in(alice), log_in(bob), log_in(carol)
    for letter in (write(alice, bob), write(alice, carol)):
        assert alices.submit(letter)["status"] == "accepted"
    with locked(bob):
        bobs.ack(bobs.mail()["seq"])
        carols.ack(carols.mail()["seq"])
        until(lambda: _acked(carol) == 1, "the ack of the other")
        assert _acked(bob) == 0
    until(lambda: _acked(bob) == 1, "the ack that was put off")


def test_no_session_waits_for_a_locked_mailbox(log_in: LogIn, alice: Player, bob: Player) -> None:
    """What the older session has taken falls back without a change of the mailbox."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    bobs.ack(bobs.mail()["seq"])
    wait_for_marks(bob, 1, 0, [])
    with locked(bob):
        newer = log_in(bob, login=TELLS_DONE)
        assert bobs.ended()[0] == "session.superseded"
        assert marks(bob) == (0, 0, [])
        newer.close()
        live = Presence.objects.filter(agent_id=bob.id)
        until(lambda: not live.exists(), "the end of the session")


def test_only_the_held_mail_of_a_locked_mailbox_waits_for_the_next_sweep(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """The rest of a sweep, such as the sessions of dead nodes, does not wait either."""
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices = log_in(alice)
    for letter in (write(alice, bob), write(alice, carol)):
        assert alices.submit(letter)["status"] == "accepted"
    suspend_agent(alice.id, actor=OFFICER, reason="drill")
    for reader in (bob, carol):
        assert log_in(reader).mail()["withheld"]
    resume_agent(alice.id, actor=OFFICER, reason="drill")
    with locked(bob):
        sweep()
        assert not _held_for(carol)
        assert _held_for(bob)
    sweep()
    assert not _held_for(bob)


def test_only_the_notices_for_a_locked_mailbox_wait_for_the_next_sweep(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    carol = make_agent(name="carol", organisation=alice.organisation)
    dead_letter(log_in, alice, bob, notify=True)
    sweep()  # from now on there is a mailbox to lock
    for sender in (alice, carol):
        dead_letter(log_in, sender, bob, notify=True)
    told = Delivery.objects.filter(state=Delivery.State.NOTICE)
    with locked(alice):
        sweep()
        assert told.filter(recipient_id=carol.id).exists()
    sweep()
    assert told.filter(recipient_id=alice.id).count() == 2


def _held_for(agent: Player) -> bool:
    held = Delivery.objects.filter(recipient_id=agent.id, state=Delivery.State.HELD)
    return held.exists()


def _acked(agent: Player) -> int:
    return int(Mailbox.objects.get(agent_id=agent.id, stream="mail").acked_seq)

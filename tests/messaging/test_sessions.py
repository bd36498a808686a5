"""One live session an agent: takeovers, fencing, leases, and agents that leave half way."""

from __future__ import annotations

import logging
import threading
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as hub_settings
from pytest_django.fixtures import Settings

from messaging.judging import pipeline
from messaging.mail.acknowledging import MailboxAck, acknowledge
from messaging.models import Envelope, Mailbox, Node, Presence, Session
from messaging.node.process_node import process_node
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount
from tests.cast import Letter, Player, write
from tests.messaging.conftest import Arm, LogIn, until
from tests.wire import Wire


def test_it_gives_an_agent_to_the_newer_of_two_logins(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    older = log_in(bob)
    newer = log_in(bob)

    assert older.ended() == ("session.superseded", 4409)
    log_in(alice).submit(letter := write(alice, bob))
    assert newer.mail()["ATP"]["messageId"] == letter.message_id
    row = Session.objects.get(id=older.welcome["session"])
    assert (row.close_code, row.closed_at is not None) == ("session.superseded", True)
    kinds = Entry.objects.filter(session=row.id).values_list("kind", flat=True)
    assert list(kinds) == [Kind.SESSION_OPENED, Kind.SESSION_SUPERSEDED]


def test_it_fences_off_what_a_superseded_session_still_sends(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Envelopes and acks that were on their way, or come from a node that was frozen meanwhile."""
    older = log_in(bob)
    log_in(alice).submit(write(alice, bob))
    older.mail()
    newer = log_in(bob)
    late = write(bob, alice)
    pipeline.check(_batch(older, late))

    assert acknowledge([MailboxAck(bob.id, older.welcome["session"], "mail", 1)]) == []
    assert Mailbox.objects.get(agent_id=bob.id, stream="mail").acked_seq == 0
    assert not Envelope.objects.filter(message_id=late.message_id).exists()
    assert newer.mail()["seq"] == 1  # delivered again, to the session that counts
    assert newer.submit(late)["status"] == "accepted"  # and it left no id behind


def test_rejects_an_agent_that_logs_in_without_end(
    log_in: LogIn, knock: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    """Each login leaves entries in the trail; a refused one is counted with others."""
    settings.ATP_LOGINS_PER_MINUTE = 3
    for _ in range(3):
        log_in(alice)
    late = knock(alice)
    late.authenticate(late.prove(late.challenge()["nonce"]))
    told = late.next("error")
    assert told["code"] == "flow.too_many"
    assert 0 < told["retryAfter"] <= 60
    assert late.ended()[1] == 4429

    opened = Entry.objects.filter(kind=Kind.SESSION_OPENED, sender=alice.id)
    assert opened.count() == 3
    refused = RefusalCount.objects.filter(agent=alice.id, code="flow.too_many")
    counted = Entry.objects.filter(kind=Kind.REFUSALS_COUNTED, sender=alice.id)
    assert refused.exists() or counted.exists()
    log_in(bob)  # nobody else waits for it
    earlier = datetime.now(UTC) - timedelta(minutes=1)
    Session.objects.filter(agent_id=alice.id).update(opened_at=earlier)
    assert log_in(alice).submit(write(alice, bob))["status"] == "accepted"


def test_it_raises_an_alarm_when_logins_fight_over_an_agent(
    log_in: LogIn, bob: Player, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "messaging"):
        for _ in range(5):
            log_in(bob)
        until(lambda: _takeovers(bob) == 4, "four takeovers")
        assert not caplog.records
        log_in(bob)
        until(lambda: caplog.records, "an alarm")

    assert [bob.id in record.getMessage() for record in caplog.records] == [True]
    assert _takeovers(bob) == 5


def test_it_raises_no_alarm_when_an_agent_hangs_up_and_logs_in_again(
    log_in: LogIn, arm: Arm, bob: Player, caplog: pytest.LogCaptureFixture
) -> None:
    """A newcomer's script, run ten times: each login comes before the last session is closed."""
    go_on = threading.Event()

    def wait(_: object) -> None:
        go_on.wait(10)

    arm("before_close", wait)
    try:
        with caplog.at_level(logging.CRITICAL, "messaging"):
            for _ in range(10):
                log_in(bob).close()
            last = log_in(bob)
    finally:
        go_on.set()
    until(lambda: not process_node.current().closings.lane.busy, "the end of the closings")

    assert not caplog.records
    assert _takeovers(bob) == 0
    present = Presence.objects.get(agent_id=bob.id)
    assert str(present.session_id) == last.welcome["session"]


def _takeovers(player: Player) -> int:
    counted: int = Presence.objects.get(agent_id=player.id).takeovers
    return counted


def test_it_closes_every_socket_of_a_node_whose_lease_ran_out(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """A node that was frozen: what it sends is fenced off until its agents log in again."""
    alices = log_in(alice)
    letter = write(alice, bob)
    past = datetime.now(UTC) - timedelta(seconds=1)  # of the database's clock, too
    Node.objects.filter(id=process_node.current().id).update(lease_until=past)
    pipeline.check(_batch(alices, letter))

    assert alices.ended() == ("session.fenced", 4412)
    assert not Envelope.objects.filter(message_id=letter.message_id).exists()
    until(
        Node.objects.filter(id=process_node.current().id, lease_until__gt=past).exists,
        "a new lease",
    )
    assert log_in(alice).submit(letter)["status"] == "accepted"


def test_it_closes_the_session_of_an_agent_that_hangs_up(log_in: LogIn, bob: Player) -> None:
    bobs = log_in(bob)
    bobs.cut()

    until(lambda: Session.objects.get(id=bobs.welcome["session"]).closed_at, "closing")
    assert not Presence.objects.filter(agent_id=bob.id).exists()
    kinds = Entry.objects.filter(session=bobs.welcome["session"]).values_list("kind", flat=True)
    assert list(kinds) == [Kind.SESSION_OPENED, Kind.SESSION_CLOSED]


def test_it_keeps_no_session_of_an_agent_that_hangs_up_during_its_login(
    knock: LogIn, bob: Player
) -> None:
    wire = knock(bob)
    wire.authenticate(wire.prove(wire.challenge()["nonce"]))
    wire.cut()

    _assert_all_sessions_close(bob)


def test_it_keeps_no_session_of_a_login_that_took_too_long(
    knock: LogIn, bob: Player, settings: Settings
) -> None:
    settings.ATP_HANDSHAKE_SECONDS = 0.05
    wire = knock(bob)
    proof = wire.prove(wire.challenge()["nonce"])
    held = _hold_the_login_lane()
    try:
        wire.authenticate(proof)
        assert wire.ended() == ("session.timeout", 4408)
    finally:
        held()

    _assert_all_sessions_close(bob)


def _hold_the_login_lane() -> Any:
    """Keep all threads of the node busy; gives back what lets them go."""
    go_on = threading.Event()
    executor = process_node.current().threads
    for _ in range(hub_settings.ATP_EXECUTOR_THREADS):
        executor.submit(go_on.wait, 10)
    return go_on.set


def _assert_all_sessions_close(player: Player) -> None:
    rows = Session.objects.filter(agent_id=player.id)
    until(rows.exists, "a session")
    until(lambda: not rows.filter(closed_at=None).exists(), "its end")
    assert not Presence.objects.filter(agent_id=player.id).exists()


def _batch(wire: Wire, *letters: Letter) -> dict[str, Any]:
    assert wire.player is not None
    session = wire.welcome["session"]
    return {
        "batch": str(uuid.uuid4()),
        "channel": process_node.current().channel,
        "frames": [[session, wire.player.id, letter.text] for letter in letters],
        "announce": False,
    }

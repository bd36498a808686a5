"""Handlers that began and failed are counted; after five the mail is a dead letter."""

from __future__ import annotations

import gc
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from atp.wire.canonical import b64url
from messaging.layer.loops import send_loop
from messaging.mail.absences import end_overdue
from messaging.mail.attempts import MOST_FAILURES
from messaging.models import Absence, Presence, Session
from messaging.node import connections
from messaging.node.process_node import process_node
from messaging.sessions.proofs import LoginRequest
from messaging.sessions.sessions import (
    Opened,
    close_sessions,
    close_sessions_of_dead_nodes,
    open_sessions,
)
from messaging.wire.sockets import BoundedWebSocket
from registry.agents.actions import suspend_agent
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, prove, write
from tests.messaging.acks import (
    TELLS_DONE,
    box_of,
    hear,
    marks,
    move_to_dead_node,
    position_of,
    states,
    stay_away,
    wait_for_marks,
    wait_until_absent,
)
from tests.messaging.conftest import Arm, LogIn, until
from tests.wire import PATIENCE_SECONDS, Wire

GONE = "handler.failed"


@pytest.fixture
def bobs(log_in: LogIn, alice: Player, bob: Player) -> Wire:
    """Bob's socket: three messages are taken, none is done."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    for _ in range(3):
        alices.submit(write(alice, bob))
    hear(bobs, 3)
    return bobs


def _failures(player: Player) -> list[int]:
    return [failures for _, _, failures in states(player)]


def _begin(bobs: Wire, bob: Player, *places: int) -> None:
    bobs.ack(3, begun=list(places))
    until(lambda: position_of(bob).begun == set(places), "the news that handlers have begun")


def _wait_for_end(player: Player) -> None:
    until(lambda: not Presence.objects.filter(agent_id=player.id).exists(), "the session's end")


def test_it_stores_how_many_handlers_have_failed(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """The place stays undone; a lower number that comes later changes nothing."""
    _begin(bobs, bob, 1, 2)
    bobs.ack(3, retry=[[1, 2], [2, 1]])
    until(lambda: _failures(bob) == [2, 1, 0], "the failures")
    assert position_of(bob).begun == set()
    bobs.ack(3, retry=[[1, 1], [2, 3]])
    until(lambda: _failures(bob) == [2, 3, 0], "the failures")
    assert marks(bob) == (3, 0, [])
    bobs.close()
    _wait_for_end(bob)

    back = log_in(bob, login=TELLS_DONE)
    assert [back.mail().get("attempt", 1) for _ in range(3)] == [3, 4, 1]


def test_a_crash_counts_what_has_begun_and_nothing_else(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """It is one when another process takes the agent's mail; that one is told of it at once."""
    _begin(bobs, bob, 1, 2, 3)
    bobs.ack(3, done=[[3, 3]], retry=[[2, 1]])
    until(lambda: position_of(bob).begun == {1}, "the news that one ended and one failed")
    bobs.cut()
    wait_until_absent(bob)
    assert _failures(bob) == [0, 1, 0]

    back = log_in(bob, login=TELLS_DONE)
    assert _failures(bob) == [1, 1, 0]
    assert [back.mail().get("attempt", 1) for _ in range(2)] == [2, 2]
    assert not Absence.objects.filter(agent_id=bob.id).exists()


def test_a_process_that_does_not_come_back_has_crashed(bob: Player, bobs: Wire) -> None:
    """Its mail is charged once, however many sweeps look for it."""
    _begin(bobs, bob, 1)
    bobs.cut()
    wait_until_absent(bob)
    end_overdue()  # its time has not passed
    assert _failures(bob) == [0, 0, 0]
    stay_away(bob)
    end_overdue()
    assert _failures(bob) == [1, 0, 0]


def test_a_broken_network_counts_nothing(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """However often it breaks: the process lives, and so does its handler."""
    _begin(bobs, bob, 1)
    wire = bobs
    for _ in range(MOST_FAILURES + 1):
        wire.cut()
        wait_until_absent(bob)
        wire = log_in(bob, login={**TELLS_DONE, "resumes": wire.welcome["session"]})
        assert hear(wire, 3) == [1, 2, 3]
    assert _failures(bob) == [0, 0, 0]
    wire.ack(3, done=[[1, 3]])
    wait_for_marks(bob, 3, 3, [])


def test_a_process_that_dies_after_its_network_broke_has_crashed_once(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """Also if it could not tell again what had begun."""
    _begin(bobs, bob, 1)
    bobs.cut()
    wait_until_absent(bob)
    back = log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    back.cut()
    wait_until_absent(bob)
    log_in(bob, login=TELLS_DONE)
    assert _failures(bob) == [1, 0, 0]


def test_a_process_that_comes_back_too_late_has_crashed(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """The time counts, and not the sweep."""
    _begin(bobs, bob, 1)
    bobs.cut()
    wait_until_absent(bob)
    Absence.objects.filter(agent_id=bob.id).update(until=datetime.now(UTC) - timedelta(seconds=1))
    back = log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    assert back.mail()["attempt"] == 2
    assert _failures(bob) == [1, 0, 0]


def test_a_process_may_name_any_of_its_sessions(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """The welcome of the last one may not have arrived before the network broke again."""
    _begin(bobs, bob, 1)
    resumed = {**TELLS_DONE, "resumes": bobs.welcome["session"]}
    for _ in range(3):
        process_node.current().roster.agents[bob.id].close("session.closed")
        until(lambda: bob.id not in process_node.current().roster.agents, "the end of the socket")
        wait_until_absent(bob)
        wire = log_in(bob, login=resumed)
        assert hear(wire, 3) == [1, 2, 3]
    assert _failures(bob) == [0, 0, 0]


def test_a_login_that_breaks_off_charges_nothing(bob: Player, bobs: Wire) -> None:
    """The process may try again; when it does not, its handler has crashed."""
    _begin(bobs, bob, 1)
    bobs.cut()
    wait_until_absent(bob)
    node, session = process_node.current(), bobs.welcome["session"]
    nonce = b64url(uuid.uuid4().bytes)
    proof = prove(bob, url="ws://hub.test/ws/agents/", nonce=nonce)
    login = LoginRequest(proof, nonce, "hub.test", "/ws/agents/", "", resumes=session)
    (opened,) = open_sessions([login], node.id)
    assert isinstance(opened, Opened)
    assert not Absence.objects.filter(agent_id=bob.id).exists()
    loop = send_loop.node_loop
    assert loop is not None
    loop.call_soon_threadsafe(node.closings.abandon, opened)
    wait_until_absent(bob)
    assert _failures(bob) == [0, 0, 0]
    stay_away(bob)
    assert _failures(bob) == [1, 0, 0]


def test_a_delivery_alone_counts_nothing(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    bobs.ack(2)
    wait_for_marks(bob, 2, 0, [])
    bobs.cut()
    stay_away(bob)
    assert _failures(bob) == [0, 0, 0]


def test_an_agent_that_says_goodbye_has_not_crashed(bob: Player, bobs: Wire) -> None:
    _begin(bobs, bob, 1)
    bobs.close()
    _wait_for_end(bob)
    assert not Absence.objects.filter(agent_id=bob.id).exists()
    assert _failures(bob) == [0, 0, 0]


def test_an_agent_without_a_pong_has_crashed(bob: Player, bobs: Wire) -> None:
    """Here the hub's timer is called at once."""
    _begin(bobs, bob, 1)
    (socket,) = (
        found
        for found in gc.get_objects()
        if type(found) is BoundedWebSocket and found.client == bobs.socket.local_address
    )
    socket.loop.call_soon_threadsafe(socket.keepalive_timeout)
    stay_away(bob)
    assert _failures(bob) == [1, 0, 0]


def test_an_agent_that_does_not_read_has_crashed(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one whose handler blocks its event loop."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)
    alices = log_in(alice)
    bobs = log_in(bob, login=TELLS_DONE, read_ahead=1, buffer_bytes=4_096)
    alices.submit(write(alice, bob))
    hear(bobs, 1)
    bobs.ack(1, begun=[1])
    until(lambda: position_of(bob).begun == {1}, "that the handler has begun")
    for _ in range(80):
        alices.submit(write(alice, bob, data={"filler": "x" * 100_000}))
    stay_away(bob)
    assert _failures(bob)[:2] == [1, 0]
    bobs.cut()


def test_no_close_by_the_hub_counts(bob: Player, bobs: Wire) -> None:
    _begin(bobs, bob, 1)
    suspend_agent(bob.id, actor=OFFICER, reason="drill")
    assert bobs.ended()[0] == "session.revoked"
    _wait_for_end(bob)
    assert not Absence.objects.filter(agent_id=bob.id).exists()
    assert _failures(bob) == [0, 0, 0]


def test_a_replaced_session_counts_nothing(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """Its agent goes on elsewhere, whatever becomes of the older socket."""
    _begin(bobs, bob, 1)
    older = bobs.welcome["session"]
    log_in(bob, login={**TELLS_DONE, "resumes": older})
    assert bobs.ended()[0] == "session.superseded"
    Session.objects.filter(id=older).update(closed_at=None)  # as if this came first
    close_sessions([(bob.id, older, "session.closed")], broken={older: [("mail", 1)]})
    assert not Absence.objects.filter(agent_id=bob.id).exists()
    assert _failures(bob) == [0, 0, 0]


def test_a_process_that_died_just_before_its_mail_was_taken_over_has_crashed(
    log_in: LogIn, bob: Player, bobs: Wire, arm: Arm
) -> None:
    """The hub notes the end of its socket after the other login."""
    held, free = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        assert free.wait(PATIENCE_SECONDS)

    _begin(bobs, bob, 1)
    arm("before_close", hold)
    try:
        bobs.cut()
        assert held.wait(PATIENCE_SECONDS)
        back = log_in(bob, login=TELLS_DONE)
    finally:
        free.set()
    until(lambda: _failures(bob) == [1, 0, 0], "the failure")
    assert hear(back, 3) == [1, 2, 3]
    assert not Absence.objects.filter(agent_id=bob.id).exists()


def test_the_death_of_a_node_counts_nothing(bob: Player, bobs: Wire) -> None:
    """Only it knew what had begun."""
    _begin(bobs, bob, 1)
    wait_for_marks(bob, 3, 0, [])
    move_to_dead_node(bob)
    close_sessions_of_dead_nodes()
    assert not Presence.objects.filter(agent_id=bob.id).exists()
    bobs.cut()  # a node that was only frozen notices this later
    until(lambda: bob.id not in process_node.current().roster.agents, "the end of the socket")
    until(lambda: not process_node.current().closings.lane.busy, "that it is written down")
    assert _failures(bob) == [0, 0, 0]


def test_the_fifth_crash_makes_a_dead_letter(
    log_in: LogIn, alice: Player, bob: Player, bobs: Wire
) -> None:
    """The hub refuses it itself when it would deliver it again, and the stream goes on."""
    bobs.ack(3, done=[[2, 3]])
    wait_for_marks(bob, 3, 0, [[2, 3]])
    wire = bobs
    for attempt in range(1, MOST_FAILURES + 1):
        wire.ack(1, begun=[1])
        until(lambda: position_of(bob).begun == {1}, "that the handler has begun")
        wire.cut()
        wait_until_absent(bob)
        wire = log_in(bob, login=TELLS_DONE)
        assert _failures(bob)[0] == attempt
        if attempt < MOST_FAILURES:
            assert wire.mail()["attempt"] == attempt + 1

    assert hear(wire, 2) == [(1, 1, GONE), (2, 3, "delivery.done")]
    assert states(bob)[0] == ("refused", GONE, MOST_FAILURES)
    (entry,) = Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=bob.id)
    assert (entry.actor, entry.sender) == ("hub", alice.id)
    place = entry.body.read("recipient")
    assert (place["stream"], place["seq"], entry.body.read()["code"]) == ("mail", 1, GONE)
    wire.ack(3, done=[[1, 3]])
    wait_for_marks(bob, 3, 3, [])


def test_what_a_live_session_has_taken_is_no_dead_letter(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """It refuses the mail itself, or takes it back with its sixth attempt."""
    bobs.ack(3, retry=[[1, MOST_FAILURES]])
    until(lambda: _failures(bob)[0] == MOST_FAILURES, "the failures")
    wait_for_marks(bob, 3, 0, [])
    back = log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    assert back.mail()["attempt"] == MOST_FAILURES + 1
    back.ack(3, refused=[[1, GONE]])
    until(lambda: states(bob)[0] == ("refused", GONE, MOST_FAILURES), "the refusal")


def test_a_refusal_keeps_the_failures_before_it(bob: Player, bobs: Wire) -> None:
    """Both in one ack: the dead letter tells how often it was tried."""
    bobs.ack(3, retry=[[1, 4], [2, 2]], refused=[[1, GONE]], done=[[2, 2]])
    wait_for_marks(bob, 3, 2, [])
    assert states(bob) == [("refused", GONE, 4), ("waiting", "", 0), ("waiting", "", 0)]
    assert box_of(bob).waiting == 1

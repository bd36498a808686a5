"""Sessions that only send: beside the running agent, which goes on undisturbed."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from atp.types import MessageType
from messaging.models import (
    Node,
    Presence,
    SendOnlySession,
    Session,
)
from messaging.node.process_node import process_node
from messaging.sessions import leases
from messaging.sessions.presence import online_agents
from messaging.sessions.sessions import close_sessions_of_dead_nodes
from registry.agents.actions import suspend_agent
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, answer, ask, write
from tests.messaging.conftest import LogIn, until
from tests.messaging.send_only import BESIDE, ONLY, is_stored
from tests.messaging.test_leases import new_node, run_out
from tests.messaging.test_telemetry import since
from tests.wire import Frame, Wire


def test_a_second_process_sends_and_the_running_agent_goes_on(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    assert tool.welcome["sendOnly"] is True
    assert "sendOnly" not in running.welcome
    request, news = ask(bob, alice), write(bob, alice)

    assert tool.submit(request)["status"] == "accepted"
    assert tool.submit(news)["status"] == "accepted"
    heard = [alices.mail()["ATP"]["messageId"] for _ in range(2)]
    assert heard == [request.message_id, news.message_id]
    response = answer(alice, request)
    assert alices.submit(response)["status"] == "accepted"
    assert tool.answers()["ATP"] == response.envelope.document

    alices.submit(mail := write(alice, bob))
    assert running.mail()["ATP"]["messageId"] == mail.message_id
    assert running.answers()["ATP"] == response.envelope.document  # the stream stays its own
    assert running.submit(write(bob, alice))["status"] == "accepted"
    assert tool.unasked() == []  # no mail
    present = Presence.objects.get(agent_id=bob.id)
    assert str(present.session_id) == running.welcome["session"]
    assert present.takeovers == 0


def test_a_process_without_another_one_gets_a_full_session(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, only = log_in(alice), log_in(bob, login=BESIDE)
    assert "sendOnly" not in only.welcome
    alices.submit(mail := write(alice, bob))
    assert only.mail()["ATP"]["messageId"] == mail.message_id
    assert log_in(bob).welcome["session"]
    assert only.ended() == ("session.superseded", 4409)  # by one that takes over


def test_a_process_that_says_so_only_sends_without_another_one_too(
    log_in: LogIn, knock: LogIn, alice: Player, bob: Player
) -> None:
    """It counts as connected for nobody: no broadcast, no mail, no receipt that says so."""
    alices, only = log_in(alice), log_in(bob, login=ONLY)
    assert only.welcome["sendOnly"] is True
    assert online_agents([bob.id]) == set()
    assert alices.submit(write(alice, "*", kind=MessageType.BROADCAST))["recipients"] == 0
    assert alices.submit(ask(alice, bob))["connected"] is False
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    only.submit(request := ask(bob, alice))
    alices.submit(response := answer(alice, request))
    assert only.answers()["ATP"] == response.envelope.document
    assert [frame["type"] for frame in only.unasked()] == []
    running = log_in(bob)  # takes nothing over
    assert [running.mail()["seq"] for _ in range(2)] == [1, 2]
    assert only.submit(write(bob, alice))["status"] == "accepted"
    for wrong in ("yes", 1, None):
        stranger = knock(bob)
        stranger.authenticate(stranger.prove(stranger.challenge()["nonce"]), sendOnly=wrong)
        assert stranger.next("error")["code"] == "session.authentication"


def test_a_process_that_comes_back_replaces_its_own_session(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """The hub may not have noticed yet that its socket is dead."""
    first = log_in(bob, login=BESIDE)
    again = log_in(bob, login={**BESIDE, "resumes": first.welcome["session"]})
    assert "sendOnly" not in again.welcome
    assert first.ended()[0] == "session.superseded"
    other = log_in(bob, login={**BESIDE, "resumes": first.welcome["session"]})
    assert other.welcome["sendOnly"] is True  # that is not the current one any more


def test_broadcasts_and_presence_are_about_sessions_that_take_mail(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    broadcast = write(alice, "*", kind=MessageType.BROADCAST)
    assert alices.submit(broadcast)["recipients"] == 1
    assert running.mail()["ATP"]["messageId"] == broadcast.message_id
    running.close()
    until(lambda: not online_agents([bob.id]), "the end of the running agent")
    assert alices.submit(write(alice, "*", kind=MessageType.BROADCAST))["recipients"] == 0
    assert tool.submit(write(bob, alice))["status"] == "accepted"
    assert not [frame for frame in tool.unasked() if frame["type"] == "delivery"]


# --- Fencing -------------------------------------------------------------------------------------


def test_what_a_closed_session_still_sends_is_fenced(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    log_in(bob)
    tool = log_in(bob, login=BESIDE)
    session = tool.welcome["session"]
    assert is_stored(session, bob, write(bob, alice))
    assert not is_stored(session, alice, write(alice, bob))  # of another agent
    tool.close()
    until(lambda: not SendOnlySession.objects.filter(id=session).exists(), "the end of the session")
    assert not is_stored(session, bob, write(bob, alice))


def test_a_lease_that_ran_out_is_renewed_without_sessions_that_only_send(
    alice: Player, bob: Player, database: None
) -> None:
    node, session = new_node("a-channel-of-nobody"), str(uuid.uuid4())
    at = datetime.now(UTC)
    Session.objects.create(
        id=session, agent_id=bob.id, node_id=node, kid=bob.key.kid, opened_at=at, send_only=True
    )
    SendOnlySession.objects.create(id=session, agent_id=bob.id, node_id=node)
    assert is_stored(session, bob, write(bob, alice))
    run_out(node)
    assert not is_stored(session, bob, write(bob, alice))
    assert leases.renew(node) is False
    assert not is_stored(session, bob, write(bob, alice))
    leases.release(node)
    Node.objects.filter(id=node).update(lease_until=at - timedelta(seconds=1))
    close_sessions_of_dead_nodes()
    assert Session.objects.get(id=session).close_code == "session.fenced"


def test_it_is_closed_when_the_lease_of_its_node_ran_out(log_in: LogIn, bob: Player) -> None:
    log_in(bob)
    tool = log_in(bob, login=BESIDE)
    past = datetime.now(UTC) - timedelta(seconds=1)
    Node.objects.filter(id=process_node.current().id).update(lease_until=past)
    assert tool.ended() == ("session.fenced", 4412)


def test_it_is_closed_when_its_agent_is_suspended(log_in: LogIn, bob: Player) -> None:
    running, tool = log_in(bob), log_in(bob, login=BESIDE)
    suspend_agent(bob.id, actor=OFFICER, reason="a test")
    assert running.ended() == tool.ended() == ("session.revoked", 4410)


# --- Attackers with a stolen key -----------------------------------------------------------------


def test_the_trail_tells_that_a_session_only_sends(log_in: LogIn, bob: Player) -> None:
    running, tool = log_in(bob), log_in(bob, login=BESIDE)
    bodies = [Entry.objects.get(session=w.welcome["session"], kind=Kind.SESSION_OPENED) for w in
              (running, tool)]  # fmt: skip
    told = [b"sendOnly" in entry.body.content() for entry in bodies]
    assert told == [False, True]
    rows = Session.objects.filter(agent_id=bob.id).order_by("opened_at", "send_only")
    assert list(rows.values_list("send_only", flat=True)) == [False, True]


def test_it_counts_sessions_that_only_send_and_warns_of_a_strange_address(
    log_in: LogIn, bob: Player, caplog: pytest.LogCaptureFixture
) -> None:
    same = since("atp_send_only_sessions_total", address="same")
    other = since("atp_send_only_sessions_total", address="other")
    running = log_in(bob)
    with caplog.at_level(logging.WARNING, "messaging"):
        log_in(bob, login=BESIDE)
        assert (same(), other()) == (1, 0)
        assert not caplog.records
        rows = Session.objects.filter(id=running.welcome["session"])
        rows.update(remote_address="192.0.2.7")
        tool = log_in(bob, login=BESIDE)
    assert (same(), other()) == (1, 1)
    (record,) = caplog.records
    told = record.getMessage()
    assert all(word in told for word in (bob.id, tool.welcome["session"], "192.0.2.7"))


def test_rejects_more_sessions_that_only_send_than_the_limit(
    log_in: LogIn, knock: LogIn, bob: Player, settings: Settings
) -> None:
    settings.ATP_SEND_ONLY_SESSIONS = 2
    log_in(bob)
    first = log_in(bob, login=BESIDE)
    log_in(bob, login=BESIDE)
    refused = _refused(knock(bob))
    assert refused["code"] == "flow.too_many"
    assert "only send" in refused["detail"]
    assert refused["retryAfter"] > 0
    first.close()
    live = SendOnlySession.objects.filter(agent_id=bob.id)
    until(lambda: live.count() == 1, "the end of one of them")
    assert log_in(bob, login=BESIDE).welcome["sendOnly"] is True


def test_a_flood_of_logins_that_only_send_keeps_no_running_agent_out(
    log_in: LogIn, knock: LogIn, bob: Player, settings: Settings
) -> None:
    settings.ATP_LOGINS_PER_MINUTE = 3
    log_in(bob)
    for _ in range(3):
        log_in(bob, login=BESIDE).close()
    assert _refused(knock(bob))["code"] == "flow.too_many"
    again = log_in(bob)  # takes over: of these there was one
    assert "sendOnly" not in again.welcome
    opened = Entry.objects.filter(kind=Kind.SESSION_OPENED, sender=bob.id)
    assert opened.count() == 5


def _refused(wire: Wire) -> Frame:
    wire.authenticate(wire.prove(wire.challenge()["nonce"]), **BESIDE)
    return wire.next("error")

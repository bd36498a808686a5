"""Sessions that only send: beside the running agent, which goes on undisturbed."""

from __future__ import annotations

import json
import logging
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django.fixtures import Settings

from atp.types import MessageType
from messaging.judging import pipeline
from messaging.layer.news import News
from messaging.mail.copies import read_copies
from messaging.models import (
    Delivery,
    Envelope,
    Mailbox,
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
from tests.cast import OFFICER, Letter, Player, answer, ask, write
from tests.messaging.conftest import Arm, LogIn, until
from tests.messaging.test_leases import new_node, run_out
from tests.messaging.test_telemetry import since
from tests.wire import Frame, Wire

BESIDE = {"takeover": False}


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


def test_it_takes_no_mail_and_its_acks_count_for_nobody(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    tool.submit(request := ask(bob, alice))
    alices.submit(answer(alice, request))
    alices.submit(write(alice, bob))
    place = tool.answers()["seq"]
    tool.ack(place, stream="answers", refused="handler.failed")
    tool.ack(1, stream="mail")
    assert tool.submit(write(bob, alice))["status"] == "accepted"  # both acks were read
    assert running.mail()["seq"] == 1
    assert set(Mailbox.objects.filter(agent_id=bob.id).values_list("acked_seq", flat=True)) == {0}
    assert not Delivery.objects.filter(recipient_id=bob.id).exclude(state="waiting").exists()
    running.ack(place, stream="answers")
    box = Mailbox.objects.filter(agent_id=bob.id, stream="answers", acked_seq=place)
    until(box.exists, "the ack of the session that takes mail")


def test_it_hears_the_answers_from_its_login_on(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, running = log_in(alice), log_in(bob)
    _exchange(alices, running)
    tool = log_in(bob, login=BESIDE)
    assert tool.welcome["pending"] == 0
    later = _exchange(alices, running)
    assert tool.answers()["seq"] == later == 2


def test_it_goes_on_with_answers_when_it_has_acknowledged(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_DELIVERY_WINDOW = 2
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    for seq in range(1, 6):
        _exchange(alices, running)
        alices.ack(seq)
        running.ack(seq, stream="answers")
    assert [tool.answers()["seq"] for _ in range(2)] == [1, 2]
    assert not [frame for frame in tool.unasked() if frame["type"] == "delivery"]
    tool.ack(2, stream="answers")
    assert [tool.answers()["seq"] for _ in range(2)] == [3, 4]
    tool.ack(4, stream="answers")
    assert tool.answers()["seq"] == 5


def test_copies_of_a_suspended_sender_are_withheld_and_nothing_is_written(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    for seq in (1, 2):
        _exchange(alices, running)
        alices.ack(seq)
    running.ack(1, stream="answers")
    rows = Delivery.objects.filter(recipient_id=bob.id, stream="answers")
    assert _copies(bob) == [None, None]  # also what the running agent has done
    suspend_agent(alice.id, actor=OFFICER, reason="a test")
    assert _copies(bob) == ["identity.not_active"] * 2
    assert set(rows.values_list("state", flat=True)) == {"waiting"}


def test_an_expired_copy_is_gone(log_in: LogIn, alice: Player, bob: Player) -> None:
    _exchange(log_in(alice), log_in(bob))
    rows = Delivery.objects.filter(recipient_id=bob.id, stream="answers")
    rows.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    page = read_copies(bob.id, "answers", after=0, most=10)
    assert page is not None
    assert (json.loads(page.text)["type"], json.loads(page.text)["code"]) == (
        "gone",
        "clock.expired",
    )
    assert read_copies(bob.id, "answers", after=1, most=10) is None


def _copies(player: Player) -> list[str | None]:
    """Why each copy of the agent's answers is withheld; `None` for one that is delivered."""
    page = read_copies(player.id, "answers", after=0, most=10)
    assert page is not None
    return [frame.get("withheld") for frame in json.loads(page.text)]


def test_a_process_that_comes_back_hears_what_was_answered_meanwhile(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    tool.submit(request := ask(bob, alice))
    assert alices.mail()["ATP"]["messageId"] == request.message_id
    tool.cut()
    gone = Session.objects.filter(id=tool.welcome["session"]).exclude(closed_at=None)
    until(gone.exists, "the end of its session")
    alices.submit(response := answer(alice, request))
    running.answers()
    again = log_in(bob, login={**BESIDE, "resumes": tool.welcome["session"]})
    assert again.answers()["ATP"] == response.envelope.document


def test_a_process_whose_mail_was_taken_over_hears_what_was_answered_meanwhile(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, idle = log_in(alice), log_in(bob, login=BESIDE)
    idle.submit(request := ask(bob, alice))
    assert alices.mail()["ATP"]["messageId"] == request.message_id
    newer = log_in(bob)
    assert idle.ended()[0] == "session.superseded"
    alices.submit(response := answer(alice, request))
    newer.ack(newer.answers()["seq"], stream="answers")
    again = log_in(bob, login={**BESIDE, "resumes": idle.welcome["session"]})
    assert again.welcome["sendOnly"] is True
    assert again.answers()["ATP"] == response.envelope.document


def test_it_hears_no_answers_of_another_agent_by_naming_its_session(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    _exchange(alices, bobs)
    log_in(mallory)
    intruder = log_in(mallory, login={**BESIDE, "resumes": bobs.welcome["session"]})
    assert intruder.welcome["sendOnly"] is True
    assert intruder.submit(write(mallory, mallory))["status"] != "accepted"
    assert intruder.unasked() == []


def test_its_answers_come_without_a_session_that_takes_mail(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    running.close()
    until(lambda: not online_agents([bob.id]), "the end of the running agent")
    tool.submit(request := ask(bob, alice))
    alices.submit(response := answer(alice, request))
    assert tool.answers()["ATP"] == response.envelope.document


def test_its_node_gets_the_news_of_an_answer_too(
    log_in: LogIn, arm: Arm, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    node, session = new_node("a-channel-of-nobody"), str(uuid.uuid4())
    SendOnlySession.objects.create(id=session, agent_id=bob.id, node_id=node)
    told: list[News] = []
    arm("before_publish", lambda news: told.append(news))
    _exchange(alices, running)
    leases.release(node)
    _exchange(alices, running)
    hear = [one for one in told for agent, stream, *_ in one.deliveries if stream == "answers"]
    SendOnlySession.objects.filter(id=session).delete()
    assert len(hear) == 3  # of the first answer both nodes, of the second one that has a lease


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
    assert _judge(session, bob, write(bob, alice))
    assert not _judge(session, alice, write(alice, bob))  # of another agent
    tool.close()
    until(lambda: not SendOnlySession.objects.filter(id=session).exists(), "the end of the session")
    assert not _judge(session, bob, write(bob, alice))


def test_a_lease_that_ran_out_is_renewed_without_sessions_that_only_send(
    alice: Player, bob: Player, database: None
) -> None:
    node, session = new_node("a-channel-of-nobody"), str(uuid.uuid4())
    at = datetime.now(UTC)
    Session.objects.create(
        id=session, agent_id=bob.id, node_id=node, kid=bob.key.kid, opened_at=at, send_only=True
    )
    SendOnlySession.objects.create(id=session, agent_id=bob.id, node_id=node)
    assert _judge(session, bob, write(bob, alice))
    run_out(node)
    assert not _judge(session, bob, write(bob, alice))
    assert leases.renew(node) is False
    assert not _judge(session, bob, write(bob, alice))
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


def _exchange(asked: Wire, asking: Wire) -> int:
    """A request of one agent and its answer; the place of the answer in its stream."""
    assert asked.player is not None
    assert asking.player is not None
    asking.submit(request := ask(asking.player, asked.player))
    asked.mail()
    assert asked.submit(answer(asked.player, request))["status"] == "accepted"
    seq: int = asking.answers()["seq"]
    return seq


def _judge(session: str, player: Player, letter: Letter) -> bool:
    """Whether a batch of this letter, sent over that session, is stored."""
    batch = {"batch": str(uuid.uuid4()), "channel": process_node.current().channel}

    pipeline.check({**batch, "frames": [[session, player.id, letter.text]]})
    return Envelope.objects.filter(message_id=letter.message_id).exists()

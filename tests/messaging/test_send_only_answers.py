"""The answers that sessions that only send hear: those to what their own process sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django.fixtures import Settings

from messaging.layer.news import News
from messaging.mail import acknowledging
from messaging.mail.copies import Heard, read_copies
from messaging.mail.notices import place_notices
from messaging.mail.withhold import expire
from messaging.models import (
    Delivery,
    Mailbox,
    Presence,
    SendOnlySession,
    Session,
)
from messaging.node.process_node import process_node
from messaging.sessions import leases
from messaging.sessions.presence import online_agents
from registry.agents.actions import suspend_agent
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, answer, ask, write
from tests.messaging.acks import TELLS_DONE
from tests.messaging.conftest import Arm, LogIn, until
from tests.messaging.send_only import BESIDE, ELSEWHERE, ONLY, answer_to, exchange, is_stored
from tests.messaging.test_leases import new_node
from tests.wire import Wire


def test_it_hears_no_answers_to_others_of_its_agent(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Their places are told as gone, so that no place is missing; who takes mail hears them all."""
    alices, running = log_in(alice), log_in(bob)
    first, second = (log_in(bob, login=login) for login in (ONLY, BESIDE))
    heard = [answer_to(wire, alices) for wire in (first, running, second, first)]
    texts = [letter.envelope.document for letter in heard]
    assert _hear(running, 4) == texts
    assert _hear(first, 4) == [texts[0], ELSEWHERE, ELSEWHERE, texts[3]]
    assert _hear(second, 4) == [ELSEWHERE, ELSEWHERE, texts[2], ELSEWHERE]


def test_what_it_has_done_is_done_for_its_agent(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Else the answers of an agent that only sends would fill its inbox until they expire."""
    alices = log_in(alice)
    tools = [log_in(bob, login={**ONLY, **TELLS_DONE}), log_in(bob, login=ONLY)]
    for wire in (tools[0], tools[1], tools[0], tools[1]):
        answer_to(wire, alices)
    for tool in tools:
        tool.take(lambda frame: 4 in (frame.get("seq"), frame.get("to")), "the fourth place")
    tools[0].ack(4, stream="answers", done=[[1, 4]])  # also what is not its own
    _wait_for_answers_done(bob, 1, [[3, 3]])
    tools[1].ack(4, stream="answers")
    _wait_for_answers_done(bob, 4, [])
    entries = Entry.objects.filter(kind=Kind.DELIVERY_ACKNOWLEDGED, recipient=bob.id)
    ranges = [e.body.read()["ranges"] for e in entries.order_by("position")]
    assert ranges == [[[1, 1], [3, 3]], [[2, 2], [4, 4]]]


def test_answers_that_nobody_acknowledges_make_no_endless_ranges(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not stored as done stays for the session that takes the mail; nothing is lost."""
    monkeypatch.setattr(acknowledging, "MOST_UNDONE", 3)
    alices = log_in(alice)
    deaf, tool = (log_in(bob, login={**ONLY, **TELLS_DONE}) for _ in range(2))
    for place in range(2, 21, 2):
        answer_to(deaf, alices)
        answer_to(tool, alices)
        while tool.answers().get("seq") != place:
            pass
    tool.ack(20, stream="answers", done=[[place, place] for place in range(2, 21, 2)])
    _wait_for_answers_done(bob, 0, [[2, 2], [4, 4], [6, 6]])

    running = log_in(bob, login=TELLS_DONE)
    heard = [running.answers() for _ in range(20)]
    assert [f["seq"] for f in heard if f["type"] == "delivery"] == [1, 3, 5, *range(7, 21)]
    running.ack(20, stream="answers", done=[[1, 20]])
    _wait_for_answers_done(bob, 20, [])


def test_an_answer_after_its_end_stays_for_its_agent(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, tool = log_in(alice), log_in(bob, login=ONLY)
    tool.submit(request := ask(bob, alice))
    tool.close()
    live = SendOnlySession.objects.filter(agent_id=bob.id)
    until(lambda: not live.exists(), "the end of the session")
    alices.submit(response := answer(alice, request))
    other = log_in(bob, login=ONLY)
    answer_to(other, alices)
    assert other.answers()["seq"] == 2
    assert log_in(bob).answers()["ATP"] == response.envelope.document


def test_it_gets_the_notices_of_what_it_has_sent(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, notices = log_in(alice), {"features": ["notices"]}
    mine, others = (log_in(bob, login={**ONLY, **notices}) for _ in range(2))
    mine.submit(letter := write(bob, alice, notify=True))
    alices.ack(alices.mail()["seq"], refused="handler.failed")
    until(lambda: place_notices(), "the notice")
    told = mine.next("notice")
    assert (told["messageId"], told["status"]) == (letter.message_id, "refused")
    gone = others.answers()
    assert (gone["type"], gone["code"]) == ("gone", ELSEWHERE)


def test_a_process_that_comes_back_elsewhere_gets_its_notices(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Also when a sweep has found that no delivery waits there."""
    alices, notices = log_in(alice), {"features": ["notices"]}
    mine = log_in(bob, login={**ONLY, **notices})
    mine.submit(letter := write(bob, alice, notify=True))
    mine.cut()
    live = SendOnlySession.objects.filter(agent_id=bob.id)
    until(lambda: not live.exists(), "the end of the session")
    alices.ack(alices.mail()["seq"], refused="handler.failed")
    until(lambda: place_notices(), "the notice")
    expire(datetime.now(UTC) + timedelta(days=2))
    assert Mailbox.objects.get(agent_id=bob.id, stream="answers").settled_seq == 1
    process_node.current().copies.forget(mine.welcome["session"])
    again = log_in(bob, login={**ONLY, **notices, "resumes": mine.welcome["session"]})
    assert again.next("notice")["messageId"] == letter.message_id


def test_it_goes_on_elsewhere_with_what_is_not_done(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """On another node, which does not know how far its earlier session has come."""
    alices, tool = log_in(alice), log_in(bob, login={**ONLY, **TELLS_DONE})
    for _ in range(3):
        answer_to(tool, alices)
    tool.ack(3, stream="answers", done=[[1, 1], [3, 3]])
    _wait_for_answers_done(bob, 1, [[3, 3]])
    tool.cut()
    live = SendOnlySession.objects.filter(agent_id=bob.id)
    until(lambda: not live.exists(), "the end of the session")
    process_node.current().copies.forget(tool.welcome["session"])
    again = log_in(bob, login={**ONLY, "resumes": tool.welcome["session"]})
    fourth = answer_to(again, alices).envelope.document
    frames = [again.answers() for _ in range(3)]
    assert [f.get("seq", f.get("to")) for f in frames] == [2, 3, 4]
    assert frames[2]["ATP"] == fourth


def test_an_answer_to_a_session_that_takes_mail_asks_for_no_other(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """So sessions that only send cost a request nothing where there are none."""
    alices, running = log_in(alice), log_in(bob)
    running.submit(request := ask(bob, alice))
    session = str(Presence.objects.get(agent_id=alice.id).session_id)
    with CaptureQueriesContext(connection) as queries:
        assert is_stored(session, alice, answer(alice, request))
    table = SendOnlySession._meta.db_table
    assert not [q for q in queries if table in q["sql"]]
    alices.close()


def test_it_takes_no_mail_and_its_acks_count_for_its_own_answers(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    tool.submit(request := ask(bob, alice))
    alices.submit(answer(alice, request))
    alices.submit(write(alice, bob))
    place = tool.answers()["seq"]
    running.answers()
    tool.ack(place, stream="answers", refused="handler.failed")
    tool.ack(1, stream="mail")
    assert tool.submit(write(bob, alice))["status"] == "accepted"  # both acks were read
    assert running.mail()["seq"] == 1
    _wait_for_answers_done(bob, place, [])  # its own answer, which it can't refuse for its agent
    assert Mailbox.objects.get(agent_id=bob.id, stream="mail").acked_seq == 0
    assert not Delivery.objects.filter(recipient_id=bob.id).exclude(state="waiting").exists()


def test_it_begins_behind_the_answers_before_its_login(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, running = log_in(alice), log_in(bob)
    exchange(alices, running)
    tool = log_in(bob, login=BESIDE)
    assert tool.welcome["pending"] == 0
    answer_to(tool, alices)
    assert tool.answers()["seq"] == 2


def test_it_goes_on_with_answers_when_it_has_acknowledged(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_DELIVERY_WINDOW = 2
    alices, running = log_in(alice), log_in(bob)
    tool = log_in(bob, login=BESIDE)
    for seq in range(1, 6):
        answer_to(tool, alices)
        alices.ack(seq)
        running.answers()
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
    alices, running, tool = log_in(alice), log_in(bob), log_in(bob, login=BESIDE)
    for seq in (1, 2):
        answer_to(tool, alices)
        alices.ack(seq)
        running.answers()
    running.ack(1, stream="answers")
    rows = Delivery.objects.filter(recipient_id=bob.id, stream="answers")
    assert _copies(tool, bob) == [None, None]  # also what the running agent has done
    suspend_agent(alice.id, actor=OFFICER, reason="a test")
    assert _copies(tool, bob) == ["identity.not_active"] * 2
    assert set(rows.values_list("state", flat=True)) == {"waiting"}


def test_an_expired_copy_is_gone(log_in: LogIn, alice: Player, bob: Player) -> None:
    tool = log_in(bob, login=ONLY)
    answer_to(tool, log_in(alice))
    heard = Heard(tool.welcome["session"], 0)
    rows = Delivery.objects.filter(recipient_id=bob.id, stream="answers")
    rows.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    page = read_copies(bob.id, heard, after=0, most=10)
    assert page is not None
    assert (json.loads(page.text)["type"], json.loads(page.text)["code"]) == (
        "gone",
        "clock.expired",
    )
    assert read_copies(bob.id, heard, after=1, most=10) is None


def _copies(tool: Wire, player: Player) -> list[str | None]:
    """Why each copy for this session is withheld; `None` for one that is delivered."""
    heard = Heard(tool.welcome["session"], 0)
    page = read_copies(player.id, heard, after=0, most=10)
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
    exchange(alices, bobs)
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
    alices, running, tool = log_in(alice), log_in(bob), log_in(bob, login=ONLY)
    node, session = new_node("a-channel-of-nobody"), tool.welcome["session"]
    requests = [ask(bob, alice) for _ in range(2)]
    for request in requests:
        tool.submit(request)
    SendOnlySession.objects.filter(id=session).update(node=node)
    told: list[News] = []
    arm("before_publish", lambda news: told.append(news))
    for request in requests:
        alices.submit(answer(alice, request))
        assert running.answers()["ATP"]
        leases.release(node)
    heard = [(copy[0], copy[1:4]) for one in told for copy in one.copies]
    assert heard == [(session, (1, 1, [1]))]  # of the second it has no lease any more


def _hear(wire: Wire, upto: int) -> list[Any]:
    """What is at the places 1 to `upto`, in order: envelopes, and codes of what is gone."""
    found: list[Any] = []
    while len(found) < upto:
        frame = wire.answers()
        assert frame.get("from", frame.get("seq")) == len(found) + 1
        if frame["type"] == "gone":
            found += [frame["code"]] * (frame["to"] - len(found))
        else:
            found.append(frame["ATP"])
    return found


def _wait_for_answers_done(player: Player, mark: int, ahead: list[list[int]]) -> None:
    boxes = Mailbox.objects.filter(agent_id=player.id, stream="answers")

    def is_done() -> bool:
        box = boxes.get()
        return (box.acked_seq, box.done_ahead or []) == (mark, ahead)

    until(is_done, f"that {mark} and {ahead} are done")

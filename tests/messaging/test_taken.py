"""What a live session has taken is left alone; when the session ends, it waits like other mail."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from messaging.mail.acknowledging import MailboxAck, acknowledge
from messaging.mail.withhold import expire
from messaging.models import Absence, Presence
from messaging.node.process_node import process_node
from messaging.sessions import leases
from messaging.sessions.presence import online_agents
from messaging.sessions.sessions import close_sessions, close_sessions_of_dead_nodes
from registry.agents.actions import resume_agent, suspend_agent
from tests.cast import OFFICER, Letter, Player, ask, make_agent, write
from tests.messaging.acks import (
    TELLS_DONE,
    box_of,
    hear,
    marks,
    move_to_dead_node,
    places,
    states,
    stay_away,
    wait_for_marks,
    wait_until_absent,
)
from tests.messaging.conftest import LogIn, until
from tests.wire import Wire

BRIEF_SECONDS = 30


@pytest.fixture
def bobs(log_in: LogIn, alice: Player, bob: Player) -> Wire:
    """Bob's socket: of three messages he has taken two and done none."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    for _ in range(3):
        alices.submit(write(alice, bob, lifetime=BRIEF_SECONDS))
    hear(bobs, 3)
    bobs.ack(2)
    wait_for_marks(bob, 2, 0, [])
    return bobs


def _expire() -> None:
    expire(datetime.now(UTC) + timedelta(seconds=BRIEF_SECONDS + 1))


def _names(player: Player) -> list[str]:
    return [state for state, _, _ in states(player)]


def test_it_does_not_expire(bobs: Wire, bob: Player) -> None:
    """It counts against the inbox all the same, and is looked at again by each sweep."""
    _expire()
    assert _names(bob) == ["waiting", "waiting", "expired"]
    assert box_of(bob).waiting == 2
    bobs.ack(3, done=[[2, 3]])
    wait_for_marks(bob, 3, 0, [[2, 3]])
    _expire()
    assert _names(bob) == ["waiting", "waiting", "expired"]
    assert box_of(bob).waiting == 1
    bobs.ack(3, done=[[1, 1]])
    wait_for_marks(bob, 3, 3, [])
    assert box_of(bob).waiting == 0


def test_what_is_done_ahead_does_not_expire(bobs: Wire, bob: Player) -> None:
    bobs.ack(3, done=[[2, 2]])
    wait_for_marks(bob, 3, 0, [[2, 2]])
    bobs.close()
    until(lambda: marks(bob) == (0, 0, [[2, 2]]), "the end of the session")
    _expire()
    assert _names(bob) == ["expired", "waiting", "expired"]
    assert box_of(bob).waiting == 0


def test_it_expires_and_counts_what_lies_between_what_is_done(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    for lifetime in (BRIEF_SECONDS, BRIEF_SECONDS, 600, BRIEF_SECONDS, BRIEF_SECONDS, 600, 600):
        alices.submit(write(alice, bob, lifetime=lifetime))
    hear(bobs, 7)
    bobs.ack(7, done=[[2, 2], [4, 4], [6, 6]])
    ahead = [[2, 2], [4, 4], [6, 6]]
    wait_for_marks(bob, 7, 0, ahead)
    assert box_of(bob).waiting == 4
    bobs.close()
    until(lambda: marks(bob) == (0, 0, ahead), "the end of the session")
    _expire()
    assert [n for n, state in enumerate(_names(bob), 1) if state == "expired"] == [1, 5]
    assert box_of(bob).waiting == 2
    box = box_of(bob)
    assert (box.swept_seq, box.ended) == (2, 3)

    back, done, late = log_in(bob, login=TELLS_DONE), "delivery.done", "clock.expired"
    assert back.welcome["pending"] == 4
    told = [(1, 1, late), (2, 2, done), 3, (4, 4, done), (5, 5, late), (6, 6, done), 7]
    assert hear(back, 7) == told


@pytest.mark.parametrize("resumes", [True, False], ids=["resumed", "not resumed"])
def test_only_the_same_process_keeps_what_was_taken(
    log_in: LogIn, alice: Player, bob: Player, bobs: Wire, resumes: bool
) -> None:
    """With the id of the current session; then neither expiry nor a suspension touches it."""
    earlier = bobs.welcome["session"]
    suspend_agent(alice.id, actor=OFFICER, reason="drill")
    login = {**TELLS_DONE, "resumes": earlier if resumes else ""}
    with log_in(bob, login=login) as back:
        assert marks(bob)[0] == (2 if resumes else 0)
        told = [frame.get("withheld") for frame in (back.mail() for _ in range(3))]
        held = "identity.not_active"
        assert told == [None if resumes else held, None if resumes else held, held]
        back.ack(3)
        wait_for_marks(bob, 3, 0, [])
    resume_agent(alice.id, actor=OFFICER, reason="drill")


def test_a_process_that_resumes_several_times_keeps_what_it_took(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    session = bobs.welcome["session"]
    for _ in range(3):
        session = log_in(bob, login={**TELLS_DONE, "resumes": session}).welcome["session"]
    assert marks(bob)[0] == 2


def _cut(bobs: Wire, bob: Player) -> None:
    bobs.cut()


def _fail(bobs: Wire, bob: Player) -> None:
    """Close as a library does whose hub answers no ping (RFC 6455, section 7.4.1)."""
    bobs.socket.close(code=1011)


def _restart(bobs: Wire, bob: Player) -> None:
    """Close as a hub does that stops."""
    process_node.current().roster.agents[bob.id].close("session.closed")


BREAKS = [_cut, _fail, _restart]


@pytest.mark.parametrize("end", BREAKS, ids=lambda end: end.__name__.strip("_"))
def test_it_stays_taken_while_the_process_may_come_back(
    log_in: LogIn,
    alice: Player,
    bob: Player,
    bobs: Wire,
    end: Callable[[Wire, Player], None],
) -> None:
    """The hub has noticed the end: the agent counts as away, and what its process has is left."""
    end(bobs, bob)
    wait_until_absent(bob)
    assert online_agents([bob.id]) == set()
    assert marks(bob)[0] == 2
    _expire()
    assert _names(bob) == ["waiting", "waiting", "expired"]
    suspend_agent(alice.id, actor=OFFICER, reason="drill")

    back = log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    assert marks(bob)[0] == 2
    frames = [back.mail() for _ in range(3)]
    told = [(frame.get("withheld"), frame.get("attempt")) for frame in frames[:2]]
    assert told == [(None, None), (None, None)]
    assert places(frames)[2] == (3, 3, "clock.expired")
    back.ack(3, done=[[1, 3]])
    wait_for_marks(bob, 3, 3, [])
    resume_agent(alice.id, actor=OFFICER, reason="drill")


def test_another_process_takes_over_at_once(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """Nobody waits for a process that another one follows."""
    bobs.cut()
    wait_until_absent(bob)
    back = log_in(bob, login=TELLS_DONE)
    assert marks(bob)[0] == 0
    assert not Absence.objects.filter(agent_id=bob.id).exists()
    _expire()
    assert _names(bob) == ["expired", "expired", "expired"]
    log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    assert marks(bob)[0] == 0
    assert back.ended()[0] == "session.superseded"


def test_an_idle_agent_leaves_no_absence(log_in: LogIn, bob: Player, bobs: Wire) -> None:
    """The hub writes a row only for one that may have something."""
    bobs.ack(3, done=[[1, 3]])
    wait_for_marks(bob, 3, 3, [])
    bobs.cut()
    until(lambda: not Presence.objects.filter(agent_id=bob.id).exists(), "the end of the session")
    assert not Absence.objects.filter(agent_id=bob.id).exists()


@pytest.mark.parametrize("claim", ["", "no session", "00000000-0000-0000-0000-000000000000"])
def test_rejects_what_resumes_no_current_session(
    log_in: LogIn, bob: Player, bobs: Wire, claim: str
) -> None:
    """Such as one that has ended, or another agent's: it is a login like any other."""
    back = log_in(bob, login={**TELLS_DONE, "resumes": claim})
    assert marks(bob)[0] == 0
    log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})  # it is over
    assert marks(bob)[0] == 0
    assert back.ended()[0] == "session.superseded"


def _close(bobs: Wire, bob: Player) -> None:
    bobs.close()
    until(lambda: not Presence.objects.filter(agent_id=bob.id).exists(), "the end of the session")


def _close_by_the_hub(bobs: Wire, bob: Player) -> None:
    close_sessions([(bob.id, bobs.welcome["session"], "session.revoked")])


def _die(bobs: Wire, bob: Player) -> None:
    move_to_dead_node(bob)


def _sweep(bobs: Wire, bob: Player) -> None:
    move_to_dead_node(bob)
    assert close_sessions_of_dead_nodes() >= 1


def _fence(bobs: Wire, bob: Player) -> None:
    assert leases.renew(move_to_dead_node(bob).id) is False


def _stay_away(bobs: Wire, bob: Player) -> None:
    bobs.cut()
    stay_away(bob)


def _be_late(bobs: Wire, bob: Player) -> None:
    bobs.cut()
    wait_until_absent(bob)
    Absence.objects.filter(agent_id=bob.id).update(until=datetime.now(UTC))  # and no sweep came


ENDS = [_close, _close_by_the_hub, _die, _sweep, _fence, _stay_away, _be_late]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
def test_it_falls_back_to_what_is_done(
    bobs: Wire, bob: Player, end: Callable[[Wire, Player], None]
) -> None:
    bobs.ack(3, done=[[1, 1]])
    wait_for_marks(bob, 3, 1, [])
    end(bobs, bob)
    assert marks(bob) == (1, 1, [])
    _expire()
    assert _names(bob) == ["waiting", "expired", "expired"]


def test_a_replaced_session_takes_nothing_for_the_next_one(
    log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """Its late acks are left out, so they can't move what the next session has taken."""
    late = MailboxAck(bob.id, bobs.welcome["session"], "mail", 3, done=((2, 2),))
    back = log_in(bob, login=TELLS_DONE)
    hear(back, 3)
    back.ack(1)
    wait_for_marks(bob, 1, 0, [])
    assert acknowledge([late]) == []
    assert marks(bob) == (1, 0, [])


def test_a_cause_that_is_taken_counts_however_late(
    log_in: LogIn, alice: Player, bob: Player, bobs: Wire
) -> None:
    """The mail it handles may be over, and its sender suspended."""
    alices = log_in(alice)
    alices.submit(request := _brief(alice, bob))
    assert bobs.mail()["seq"] == 4
    bobs.ack(4)
    wait_for_marks(bob, 4, 0, [])
    _expire()
    suspend_agent(alice.id, actor=OFFICER, reason="drill")
    receipt = bobs.submit(write(bob, make_agent(), cause=request.digest))
    resume_agent(alice.id, actor=OFFICER, reason="drill")
    assert receipt["status"] == "accepted"
    assert _names(bob)[3] == "waiting"


def _brief(alice: Player, bob: Player) -> Letter:
    return ask(alice, bob, lifetime=BRIEF_SECONDS)

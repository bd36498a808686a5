"""A handler of ten minutes under full traffic. The clock of the sweep is moved; nobody waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings

from messaging.mail.absences import end_overdue
from messaging.mail.done_places import MOST_UNDONE
from messaging.mail.withhold import expire
from registry.agents.actions import resume_agent, suspend_agent
from tests.cast import OFFICER, Player, ask, make_agent, write
from tests.messaging.acks import (
    TELLS_DONE,
    box_of,
    entered_ranges,
    hear,
    position_of,
    states,
    wait_for_marks,
    wait_until_absent,
)
from tests.messaging.conftest import LogIn
from tests.wire import Wire

LIFETIME_SECONDS = 60  # of the request whose handler takes ten minutes
TEN_MINUTES = timedelta(minutes=10)
OTHERS = MOST_UNDONE + 300  # messages that are handled meanwhile


def test_the_stream_goes_on_and_the_mail_of_the_handler_stays(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Through more places than may be undone at once, broken connections, and a suspension."""
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices, carols, bobs = log_in(alice), log_in(carol), log_in(bob, login=TELLS_DONE)
    alices.submit(request := ask(alice, bob, lifetime=LIFETIME_SECONDS))
    assert hear(bobs, 1) == [1]
    bobs.ack(1, begun=[1])
    _run(carols, bobs, carol, bob, first=2, last=OTHERS // 2)

    suspend_agent(alice.id, actor=OFFICER, reason="drill")
    bobs.cut()  # the process lives, and so does its handler
    wait_until_absent(bob)
    expire(datetime.now(UTC) + TEN_MINUTES)
    end_overdue()
    bobs = log_in(bob, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    repeat = bobs.mail()
    assert (repeat["seq"], repeat["ATP"]["messageId"]) == (1, request.message_id)
    assert "attempt" not in repeat
    assert hear(bobs, 1) == [(2, OTHERS // 2, "delivery.done")]
    bobs.ack(OTHERS // 2, begun=[1], done=[[2, OTHERS // 2]])
    resume_agent(alice.id, actor=OFFICER, reason="drill")
    _run(carols, bobs, carol, bob, first=OTHERS // 2 + 1, last=OTHERS)

    expire(datetime.now(UTC) + TEN_MINUTES)
    wait_for_marks(bob, OTHERS, 0, [[2, OTHERS]])
    assert states(bob)[0] == ("waiting", "", 0)
    assert (box_of(bob).waiting, position_of(bob).undone) == (1, 1)
    assert bobs.submit(write(bob, carol, cause=request.digest))["status"] == "accepted"
    bobs.ack(OTHERS, done=[[1, 1]])
    wait_for_marks(bob, OTHERS, OTHERS, [])
    places = [place for ranges in entered_ranges(bob) for place in ranges]
    assert sum(last - first + 1 for first, last in places) == OTHERS
    assert places[-1] == [1, 1]


def _run(
    sending: Wire, hearing: Wire, sender: Player, target: Player, *, first: int, last: int
) -> None:
    """Fill the window again and again; handle all that comes."""
    while first <= last:
        end = min(last, first + settings.ATP_DELIVERY_WINDOW - 1)
        letters = [write(sender, target) for _ in range(first, end + 1)]
        sending.send_together(*letters)
        assert {sending.receipt(letter)["status"] for letter in letters} == {"accepted"}
        assert hear(hearing, len(letters)) == list(range(first, end + 1))
        hearing.ack(end)
        hearing.ack(end, done=[[first, end]])
        first = end + 1

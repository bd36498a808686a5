"""The sender of a request hears at once that its recipient has refused it."""

from __future__ import annotations

from typing import Any

import pytest

from messaging.models import Delivery
from tests.cast import Letter, Player, ask, write
from tests.messaging.acks import TELLS_DONE, position_of, states, stay_away
from tests.messaging.conftest import LogIn, until
from tests.messaging.send_only import ONLY
from tests.wire import Frame, Wire

CODE = "recipient.no_handler"


def _refused(told: Frame, letter: Letter, code: str) -> bool:
    known = told["messageId"], told["status"], told["code"], told.get("stream"), told.get("seq")
    return known == (letter.message_id, "refused", code, None, None)


@pytest.mark.parametrize("asking", [{}, ONLY], ids=["takes mail", "only sends"])
@pytest.mark.parametrize("answering", [{}, TELLS_DONE], ids=["plain", "done"])
def test_it_hears_of_a_refusal(
    log_in: LogIn, alice: Player, bob: Player, asking: dict[str, Any], answering: dict[str, Any]
) -> None:
    """Though it did not ask for notices: it waits."""
    alices, bobs = log_in(alice, login=asking), log_in(bob, login=answering)
    alices.submit(request := ask(alice, bob))
    seq = bobs.mail()["seq"]
    bobs.ack(seq, refused=[[seq, CODE]] if answering else CODE)
    assert _refused(alices.next("notice"), request, CODE)
    assert alices.submit(write(alice, bob))["status"] == "accepted"


def test_it_hears_of_the_hubs_own_refusal(log_in: LogIn, alice: Player, bob: Player) -> None:
    """The request has killed its recipient five times."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    alices.submit(request := ask(alice, bob))
    bobs.mail()
    bobs.ack(1, retry=[[1, 4]])
    until(lambda: states(bob) == [("waiting", "", 4)], "the failures")
    bobs.ack(1, begun=[1])
    until(lambda: position_of(bob).begun == {1}, "that the handler has begun")
    bobs.cut()
    stay_away(bob)
    log_in(bob, login=TELLS_DONE)
    assert _refused(alices.next("notice"), request, "handler.failed")


def test_it_hears_of_it_in_a_later_session(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Its process is the same."""
    first, bobs = log_in(alice), log_in(bob)
    first.submit(request := ask(alice, bob))
    bobs.mail()
    again = log_in(alice, login={"resumes": first.welcome["session"]})
    bobs.ack(1, refused=CODE)
    assert _refused(again.next("notice"), request, CODE)


def test_nobody_else_hears_of_it(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Another process of the agent has not asked; a notification has nobody who waits."""
    alices, other, bobs = log_in(alice), log_in(alice, login=ONLY), log_in(bob)
    alices.submit(write(alice, bob))
    _refuse_all(bobs, bob, 1)
    alices.submit(request := ask(alice, bob))
    _refuse_all(bobs, bob, 2)
    assert _refused(alices.next("notice"), request, CODE)
    for wire in (alices, other):
        assert wire.submit(write(alice, bob))["status"] == "accepted"
        assert not [frame for frame in wire.unasked() if frame["type"] == "notice"]


def _refuse_all(wire: Wire, player: Player, seq: int) -> None:
    assert wire.mail()["seq"] == seq
    wire.ack(seq, refused=CODE)
    refused = Delivery.objects.filter(recipient_id=player.id, seq=seq, state="refused")
    until(refused.exists, "the refusal")
